"""Step 2, the machinery: any mmpretrain classifier + any mmpretrain dataset → store, COCO json."""

from .classifier import CamClassifier
from .engine import generate_pseudo_boxes
from .folders import ClassFolders
from .from_config import build_classifier, generate_from_config, settings_from_config
from .select import select_boxes
from .settings import Execution, PseudoBoxSettings
from .statistics import summary_line
from .store import PseudoBoxStore

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
