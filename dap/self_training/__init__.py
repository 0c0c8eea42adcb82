"""Self-training: labels from a trained detector.

Images without their ground truth → predictions of a detector on image and mirror, merged by
mmdet's ``DetTTAModel`` → the confident ones as labels (paper, Table 9). And a second round of
pseudo boxes: a store → detections of each image's own class, merged with its boxes → a store.
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
