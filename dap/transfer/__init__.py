"""From Step 3 to Step 4: transfer weights from one detector to another, and report it."""

from dap.transfer.category_dependent import category_dependent_parameters
from dap.transfer.extract import extract_detector
from dap.transfer.loading import transfer
from dap.transfer.pretrained_detector import PretrainedDetector
from dap.transfer.report import TransferReport

__all__ = [
    "PretrainedDetector",
    "TransferReport",
    "category_dependent_parameters",
    "extract_detector",
    "transfer",
]
