"""Self-training: pseudo labels from a trained detector (paper, Table 9).

Images without their ground truth → predictions of a detector, averaged over image and mirror →
the confident ones as labels.
"""

from .flip_averaging import FlipAveraging
from .pseudo_labels import choose_labels, write_pseudo_labels
from .unlabelled import image_size, write_unlabelled

__all__ = [
    "FlipAveraging",
    "choose_labels",
    "image_size",
    "write_pseudo_labels",
    "write_unlabelled",
]
