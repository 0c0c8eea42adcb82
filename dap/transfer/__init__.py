"""From Step 3 to Step 4: transfer weights from one detector to another, and report it."""

from .category_dependent import category_dependent_parameters
from .extract import extract_detector
from .loading import transfer
from .pretrained_detector import PretrainedDetector
from .report import TransferReport

__all__ = [
    "PretrainedDetector",
    "TransferReport",
    "category_dependent_parameters",
    "extract_detector",
    "transfer",
]
