"""Checks of the items of a COCO file that is converted to a store."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from mmengine.logging import print_log

from .masks import counts_of
from .shard import NO_THRESHOLD
from .statistics import UNITS

IMAGE_FIELDS = ("id", "file_name", "height", "width")
MAX_PIXELS = 131072  # coordinates up to this one keep their hundredths in a store
_STORED_FIELDS = {
    "file": {"categories", "images", "annotations"},
    "image": set(IMAGE_FIELDS),
    "annotation": {
        *("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "threshold"),
    },
}
_INTEGER_RANGES = {"id": (-(1 << 63), 1 << 63), "height": (1, 1 << 31), "width": (1, 1 << 31)}
Item = dict[str, Any]
# One row of a record's ``boxes``, and the mask if the store has masks.
Box = tuple[list[float], str | None]


class CocoChecks:
    """Checks the items of a COCO file, and counts what a store cannot hold.

    Args:
        path: The file, for messages.
        categories: COCO categories.
        thresholds: Thresholds of the annotations, in the order of their indices in the store.
        masks: Whether each annotation must have a mask.

    Raises:
        ValueError: If a category is not valid or there are too many thresholds. The
            methods raise it too, with the file and the item in the message.
    """

    def __init__(
        self, path: Path, categories: Any, thresholds: Sequence[float], masks: bool
    ) -> None:
        self.path, self.masks = path, masks
        self._labels = self._labels_by_id(categories)
        self._threshold_indices = {tau: index for index, tau in enumerate(thresholds)}
        if len(self._threshold_indices) >= NO_THRESHOLD:
            raise ValueError(
                f"{path}: {len(self._threshold_indices)} values of threshold in the annotations; "
                f"a store has room for {NO_THRESHOLD - 1}. Remove them, if they are scores"
            )
        self._dropped = 0
        self._left_out_fields: Counter[str] = Counter()

    def image(self, item: Any) -> Item:
        """Return the fields of an image that a store keeps."""
        image = {key: item.get(key) for key in IMAGE_FIELDS} if isinstance(item, dict) else {}
        for key, (least, end) in _INTEGER_RANGES.items():
            value = image.get(key)
            if type(value) is not int or not least <= value < end:
                expected = "a whole number" if key == "id" else "whole pixels, at least 1"
                self.refuse("image", item, f"expected {key}: {expected}; found {value!r}")
        try:
            os.fsencode(image["file_name"])  # type: ignore[arg-type]
        except (TypeError, UnicodeError) as error:
            self.refuse("image", item, f"expected file_name: a path; found {error}")
        self.count_left_out_fields("image", item)
        return image

    def box(self, item: Any, image: Item) -> Box | None:
        """Return the box of an annotation with its mask; count an empty box and return None."""
        if not isinstance(item, dict):
            self.refuse("annotation", item, "expected an object")
        if item.get("iscrowd") or item.get("ignore"):
            self.refuse(
                "annotation",
                item,
                "it is to be ignored in training (iscrowd or ignore), which a store cannot record. "
                "Train from this file with type='dap.CheckedCocoDataset', or remove those",
            )
        if item.get("category_id") not in self._labels:
            self.refuse("annotation", item, f"unknown category_id {item.get('category_id')!r}")
        tau = item.get("threshold")
        try:
            index = NO_THRESHOLD if tau is None else self._threshold_indices[tau]
        except (KeyError, TypeError):
            known = [*self._threshold_indices]
            self.refuse("annotation", item, f"threshold {tau!r} is not one of {known}")
        try:
            x, y, w, h = item["bbox"]
            corners = [round(UNITS * v) / UNITS for v in (x, y, x + w, y + h)]
            has_area = item.get("area", 1) > 0
        except (KeyError, TypeError, ValueError, OverflowError):
            corners = [math.inf]
        if max(map(abs, corners)) >= MAX_PIXELS:
            self.refuse(
                "annotation", item, f"expected bbox, 4 numbers of less than {MAX_PIXELS} px"
            )
        self.count_left_out_fields("annotation", item)
        if not (has_area and corners[0] < corners[2] and corners[1] < corners[3]):
            self._dropped += 1
            return None
        mask = self._mask(item, image) if self.masks else None
        return [*corners, self._labels[item["category_id"]], index], mask

    def count_left_out_fields(self, kind: str, item: Item) -> None:
        """Count the fields of an item that a store cannot hold."""
        stored = _STORED_FIELDS[kind] | ({"segmentation"} if self.masks else set())
        for key in item.keys() - stored:
            if item[key] not in (None, "", [], {}):
                self._left_out_fields[f"{key} ({kind})"] += 1

    def require_distinct_ids(self, ids: Sequence[int]) -> None:
        """Refuse a file without images, or in which two images have the same id."""
        values, counts = np.unique(np.asarray(ids, np.int64), return_counts=True)
        if not len(values):
            raise ValueError(f"{self.path} has no images; expected some to make a store of")
        if counts.max() > 1:
            raise ValueError(
                f"{self.path}: {counts.max()} images have id {values[counts.argmax()]}; expected "
                "a different one each"
            )

    def report(self) -> None:
        """Log a warning of the boxes and fields that were left out."""
        if self._dropped:
            self._warn(
                "boxes without width, height or area, rounded to hundredths of a pixel, are "
                f"dropped: {self._dropped}"
            )
        if self._left_out_fields:
            counts = sorted(self._left_out_fields.items())
            fields = ", ".join(f"{name}: {count}" for name, count in counts)
            self._warn(f"these fields cannot be stored and are left out: {fields}")

    def refuse(self, kind: str, item: Any, reason: str) -> NoReturn:
        """Raise a ValueError that names an item by its id, or else by its content."""
        number = item.get("id") if isinstance(item, dict) else None
        name = str(item)[:80] if number is None else number
        raise ValueError(f"{self.path}: {kind} {name}: {reason}")

    def _mask(self, item: Item, image: Item) -> str:
        try:
            return counts_of(item.get("segmentation"), (image["height"], image["width"]))
        except (ValueError, TypeError) as error:
            self.refuse("annotation", item, str(error))

    def _labels_by_id(self, categories: Any) -> dict[int, int]:
        labels: dict[int, int] = {}
        for item in categories:
            fields = item if isinstance(item, dict) else {}
            if type(fields.get("id")) is not int or not isinstance(fields.get("name"), str):
                self.refuse("category", item, "expected a whole number as id, and a name")
            if item["id"] in labels:
                self.refuse("category", item, "another one has this id")
            labels[item["id"]] = len(labels)
        return labels

    def _warn(self, text: str) -> None:
        print_log(f"{self.path}: {text}", "current", logging.WARNING)
