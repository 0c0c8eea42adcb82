"""What Steps 3 and 4 read."""

from .checked_coco_dataset import CheckedCocoDataset
from .pseudo_box_dataset import PseudoBoxDataset

__all__ = ["CheckedCocoDataset", "PseudoBoxDataset"]
