"""Step 2: from a classifier and labelled images to a store of pseudo boxes."""

from dap.images.class_folders import ClassFolders
from dap.runs.execution import Execution
from dap.store.reader import PseudoBoxStore
from dap.store.statistics import summary_line

from .classifier import CamClassifier
from .engine import generate_pseudo_boxes
from .from_config import build_classifier, generate_from_config, settings_from_config
from .select import select_boxes
from .settings import PseudoBoxSettings

__all__ = [
    "CamClassifier",
    "ClassFolders",
    "Execution",
    "PseudoBoxSettings",
    "PseudoBoxStore",
    "build_classifier",
    "generate_from_config",
    "generate_pseudo_boxes",
    "select_boxes",
    "settings_from_config",
    "summary_line",
]
