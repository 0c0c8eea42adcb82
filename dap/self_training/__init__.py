"""Self-training: pseudo labels from a trained detector (paper, Table 9).

Images without their ground truth → predictions of a detector on image and mirror, merged by
mmdet's ``DetTTAModel`` → the confident ones as labels.
"""

from .pseudo_labels import choose_labels, write_pseudo_labels
from .unlabelled import image_size, write_unlabelled

__all__ = [
    "choose_labels",
    "image_size",
    "write_pseudo_labels",
    "write_unlabelled",
]
