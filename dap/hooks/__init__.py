"""MMEngine hooks, which call the other packages."""

from .detector_pictures_hook import DetectorPicturesHook
from .pseudo_box_hook import PseudoBoxHook
from .total_batch_hook import TotalBatchHook

__all__ = ["DetectorPicturesHook", "PseudoBoxHook", "TotalBatchHook"]
