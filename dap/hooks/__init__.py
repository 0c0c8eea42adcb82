"""MMEngine hooks, which call the other packages."""

from .pseudo_box_hook import PseudoBoxHook
from .resumed_data_hook import ResumedDataHook
from .total_batch_hook import TotalBatchHook
from .validation_pictures_hook import ValidationPicturesHook

__all__ = ["PseudoBoxHook", "ResumedDataHook", "TotalBatchHook", "ValidationPicturesHook"]
