"""Labels from a trained detector.

Self-training (paper, Table 9) keeps the confident predictions of a detector on unlabelled images
and their mirror images, merged by mmdet's ``DetTTAModel``. The second round of pseudo boxes merges
the boxes of a store with detections of each image's class, and writes a new store.
"""

from .merge_rule import MergeRule, merged_rows
from .pseudo_labels import choose_labels, write_pseudo_labels
from .relabel import relabel_boxes
from .unlabelled import image_size, write_unlabelled

__all__ = [
    "MergeRule",
    "choose_labels",
    "image_size",
    "merged_rows",
    "relabel_boxes",
    "write_pseudo_labels",
    "write_unlabelled",
]
