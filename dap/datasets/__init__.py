"""Data sets of Steps 3 and 4, and readers of detection sets in COCO, VOC and YOLO format."""

from .checked_coco_dataset import CheckedCocoDataset
from .pseudo_box_dataset import PseudoBoxDataset

__all__ = ["CheckedCocoDataset", "PseudoBoxDataset"]
