"""What Steps 3 and 4 read."""

from .checked_coco_dataset import CheckedCocoDataset

__all__ = ["CheckedCocoDataset"]
