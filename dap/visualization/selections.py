"""Choose the images of a store for the galleries."""

from __future__ import annotations

import numpy as np

from dap.store.survey import Survey

PER_CLASS = 2


def selections(survey: Survey, count: int, seed: int) -> dict[str, tuple[str, list[int]]]:
    """Choose images for each gallery.

    Args:
        survey: Of the store.
        count: Images per gallery at most.
        seed: Of what is random: one gallery, the classes' images, and which of equals.

    Returns:
        Name for files → title and indices of the images, none twice.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(survey.counts))
    usable = shuffled[survey.usable[shuffled]]
    filled = usable[survey.counts[usable] > 0]

    def first(values: np.ndarray) -> list[int]:
        return filled[np.argsort(values[filled], kind="stable")[:count]].tolist()

    empty = usable[survey.counts[usable] == 0]
    return {
        "random": ("Random", usable[:count].tolist()),
        "classes": ("By class", _by_class(survey, filled, count)),
        "most": ("The most boxes", first(-survey.counts)),
        "fewest": ("The fewest boxes", first(survey.counts)),
        "smallest": ("The smallest boxes", first(survey.smallest)),
        "largest": ("The largest boxes", first(-survey.largest)),
        "none": ("No box", empty[:count].tolist()),
    }


def _by_class(survey: Survey, shuffled: np.ndarray, count: int) -> list[int]:
    """Two images each of classes that lie evenly among those that have boxes."""
    labels = survey.labels[shuffled]
    order = np.argsort(labels, kind="stable")
    classes, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    number = min(len(classes), max(1, count // PER_CLASS))
    chosen = np.linspace(0, len(classes) - 1, number).round().astype(int).tolist()
    return [
        int(shuffled[order[starts[c] + i]]) for c in chosen for i in range(min(PER_CLASS, sizes[c]))
    ]
