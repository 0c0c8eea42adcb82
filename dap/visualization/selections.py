"""Choose the images of a store for the galleries."""

from __future__ import annotations

import numpy as np

from dap.store.survey import Survey

PER_CLASS = 2


def selections(survey: Survey, count: int, seed: int) -> dict[str, tuple[str, list[int]]]:
    """Choose images for each gallery.

    Args:
        survey: Survey of the store.
        count: Maximum number of images per gallery.
        seed: Seed of the random gallery, of the images of each class, and of the order of ties.

    Returns:
        Name of the gallery, for files → title and indices of the images. A gallery shows an image
        once.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(survey.counts))
    usable = shuffled[survey.usable[shuffled]]
    with_boxes = usable[survey.counts[usable] > 0]

    def smallest(values: np.ndarray) -> list[int]:
        return with_boxes[np.argsort(values[with_boxes], kind="stable")[:count]].tolist()

    empty = usable[survey.counts[usable] == 0]
    return {
        "random": ("Random", usable[:count].tolist()),
        "classes": ("By class", _by_class(survey, with_boxes, count)),
        "most": ("The most boxes", smallest(-survey.counts)),
        "fewest": ("The fewest boxes", smallest(survey.counts)),
        "smallest": ("The smallest boxes", smallest(survey.smallest)),
        "largest": ("The largest boxes", smallest(-survey.largest)),
        "none": ("No box", empty[:count].tolist()),
    }


def _by_class(survey: Survey, shuffled: np.ndarray, count: int) -> list[int]:
    """Choose two images of each of some classes, evenly spread over the classes with boxes."""
    labels = survey.labels[shuffled]
    order = np.argsort(labels, kind="stable")
    classes, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    number = min(len(classes), max(1, count // PER_CLASS))
    chosen = np.linspace(0, len(classes) - 1, number).round().astype(int).tolist()
    return [
        int(shuffled[order[starts[c] + i]]) for c in chosen for i in range(min(PER_CLASS, sizes[c]))
    ]
