"""Commands with results: run them, skip finished ones, resume, record inputs, submit to Slurm."""

from .jobs import Job, Jobs, tool_command
from .launcher import Launcher, training_options
from .running import run_job, run_jobs
from .submission import Submission, submit

__all__ = [
    "Job",
    "Jobs",
    "Launcher",
    "Submission",
    "run_job",
    "run_jobs",
    "submit",
    "tool_command",
    "training_options",
]
