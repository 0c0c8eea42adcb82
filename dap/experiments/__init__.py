"""The experiments of the paper: which runs fill which table, and running them."""

from .catalogue import Cell, Experiment, Row, Run
from .config_tree import ConfigTree
from .launcher import Launcher
from .paper import EXPERIMENTS
from .plan import Job, Plan
from .reproduce import find_experiment, list_experiments, report, reproduce

__all__ = [
    "EXPERIMENTS",
    "Cell",
    "ConfigTree",
    "Experiment",
    "Job",
    "Launcher",
    "Plan",
    "Row",
    "Run",
    "find_experiment",
    "list_experiments",
    "report",
    "reproduce",
]
