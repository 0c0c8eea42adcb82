"""Match the images and categories of a ground truth to those of a store by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dap.files import IMAGE_SUFFIXES


def match_images(store_names: Iterable[str], truth_names: Sequence[str]) -> dict[int, int]:
    """Match the images of a ground truth to those of a store.

    Images are matched by file name; if no name matches, by path without suffix; if none of these
    match, by the stem of the file name. A path or stem must be unique on both sides.

    Args:
        store_names: File names in the store.
        truth_names: Names in the ground truth.

    Returns:
        Index in the store → index in the ground truth.

    Raises:
        ValueError: If there is no match.
    """
    truth_indices = [_unique(map(key, truth_names)) for key in _KEYS]
    store_indices: list[dict[str, int | None]] = [{} for _ in _KEYS]  # None for ambiguous values
    example = "none"
    for index, name in enumerate(store_names):
        example = example if index else repr(name)
        for key, in_truth, in_store in zip(_KEYS, truth_indices, store_indices, strict=True):
            if (value := key(name)) in in_truth:
                in_store[value] = None if value in in_store else index
    by_key = (
        {index: in_truth[value] for value, index in in_store.items() if index is not None}
        for in_truth, in_store in zip(truth_indices, store_indices, strict=True)
    )
    matched = next(filter(None, by_key), {})
    if not matched:
        raise ValueError(
            f"no image of the ground truth is in the store: it names its images like "
            f"{truth_names[0]!r}, the store like {example}. They are matched by file name or, "
            "if that is unique, by its stem: use ground truth of the images that the store was "
            "made from"
        )
    return matched


def _without_suffix(name: str) -> str:
    folder, base = os.path.split(name)
    return os.path.join(folder, _stem(base))


def _stem(name: str) -> str:
    """File name without folders and without the suffix of an image."""
    base = os.path.basename(name)
    stem, suffix = os.path.splitext(base)
    return stem if suffix.lower() in IMAGE_SUFFIXES else base


def _unique(values: Iterable[str]) -> dict[str, int]:
    """Map each value that occurs exactly once to its index."""
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
    """Match the categories of a ground truth to those of a store by name.

    Args:
        store_categories: COCO categories in the order of the labels.
        truth_categories: Names, such as WordNet ids.
        none_may_match: Whether to accept that no category matches.

    Returns:
        Label in the store per category of the ground truth, -1 for no match.

    Raises:
        ValueError: If no category matches, unless ``none_may_match``.
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
