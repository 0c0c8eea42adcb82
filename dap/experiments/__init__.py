"""The experiments of the paper: the runs behind each table, and commands that run them."""

from .catalogue import Cell, Experiment, Row, Run
from .config_tree import ConfigTree
from .data import k_shot_command
from .paper import EXPERIMENTS
from .plan import Plan
from .reproduce import find_experiment, list_experiments, report, reproduce, run_one

__all__ = [
    "EXPERIMENTS",
    "Cell",
    "ConfigTree",
    "Experiment",
    "Plan",
    "Row",
    "Run",
    "find_experiment",
    "k_shot_command",
    "list_experiments",
    "report",
    "reproduce",
    "run_one",
]
