"""Images and categories of a ground truth found in a store, by their names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dap.files import IMAGE_SUFFIXES


def match_images(store_names: Iterable[str], truth_names: Sequence[str]) -> dict[int, int]:
    """Find the images of a ground truth in a store.

    By file name; if no name is on both sides, by the path without suffix; if none of these is, by
    the stem of the file name, where no other image of either side has the same.

    Args:
        store_names: File names in the store.
        truth_names: Names in the ground truth.

    Returns:
        Index in the store → index in the ground truth.

    Raises:
        ValueError: If there is no match.
    """
    wanted = [_unique(map(key, truth_names)) for key in _KEYS]
    places_by_key: list[dict[str, int | None]] = [{} for _ in _KEYS]
    example = "none"
    for index, name in enumerate(store_names):
        example = example if index else repr(name)
        for key, truth_index, places in zip(_KEYS, wanted, places_by_key, strict=True):
            if (value := key(name)) in truth_index:
                places[value] = None if value in places else index
    by_key = (
        {place: truth_index[value] for value, place in places.items() if place is not None}
        for truth_index, places in zip(wanted, places_by_key, strict=True)
    )
    matched = next(filter(None, by_key), {})
    if not matched:
        raise ValueError(
            f"no image of the ground truth is in the store: it names its images like "
            f"{truth_names[0]!r}, the store like {example}. They are matched by file name or, "
            "where that is unique, by its stem: take ground truth of the images that the store "
            "was made from"
        )
    return matched


def _without_suffix(name: str) -> str:
    folder, base = os.path.split(name)
    return os.path.join(folder, _stem(base))


def _stem(name: str) -> str:
    """File name without folders, and without the suffix of an image if it has one."""
    base = os.path.basename(name)
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in IMAGE_SUFFIXES else base


def _unique(values: Iterable[str]) -> dict[str, int]:
    """Index of each value that occurs once."""
    indices: dict[str, int | None] = {}
    for index, value in enumerate(values):
        indices[value] = None if value in indices else index
    return {value: index for value, index in indices.items() if index is not None}


_KEYS: tuple[Callable[[str], str], ...] = (str, _without_suffix, _stem)


def match_categories(
    store_categories: Sequence[dict[str, Any]],
    truth_categories: Sequence[str],
    none_may_match: bool = False,
) -> np.ndarray:
    """Find the categories of a ground truth among those of a store, by name.

    Args:
        store_categories: COCO categories in the order of the labels.
        truth_categories: Names, such as WordNet ids.
        none_may_match: Whether it is no error if there is no match.

    Returns:
        Label in the store of each category of the ground truth, -1 for none.

    Raises:
        ValueError: If there is no match and there must be one.
    """
    labels = {str(item["name"]): label for label, item in enumerate(store_categories)}
    matched = np.array([labels.get(name, -1) for name in truth_categories], np.int64)
    if not none_may_match and not (matched >= 0).any():
        raise ValueError(
            f"no category of the ground truth is in the store: it has names like "
            f"{truth_categories[0]!r}, the store like {next(iter(labels), None)!r}. They are "
            "matched by name (ImageNet's: WordNet ids); --class-agnostic does without classes"
        )
    return matched
