"""Count and report the boxes of a training set that mmdet silently leaves out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log

IGNORED = "marked as ignore"
OUTSIDE = "outside the stated size of the image"
SMALL = "less than a pixel wide or high"
NO_AREA = "with an area of 0 or less"
_TOLERANCE = 1  # pixels by which hand-drawn boxes may exceed the image


def why_left_out(
    bbox: Sequence[float], area: float, size_wh: tuple[int, int], ignore: object = False
) -> str | None:
    """Return the reason why mmdet's ``CocoDataset`` leaves out a box, by the same rule.

    Args:
        bbox: x, y, width, height in pixels.
        area: Area in square pixels.
        size_wh: Width and height in the annotations of the image, in pixels.
        ignore: The annotation's ``ignore``.

    Returns:
        One of the constants of this module, or None for a box that is used.
    """
    if ignore:
        return IGNORED
    x, y, w, h = bbox
    inside_w = min(x + w, size_wh[0]) - max(x, 0)
    inside_h = min(y + h, size_wh[1]) - max(y, 0)
    if w < 1 or h < 1:
        return SMALL
    if min(inside_w, inside_h) <= 0:
        return OUTSIDE
    return NO_AREA if area <= 0 else None


def looks_swapped(boxes: Iterable[Sequence[float]], size_wh: tuple[int, int]) -> bool:
    """Whether boxes fit an image only if its width and height are swapped.

    This happens if a photograph with EXIF rotation was annotated upright, but its size was read
    without the rotation.

    Args:
        boxes: All boxes of the image, x, y, width, height in pixels.
        size_wh: Width and height in the annotations of the image, in pixels.
    """
    corners = [(0.0, 0.0), *((x + w, y + h) for x, y, w, h in boxes)]
    right, bottom = (max(ends) - _TOLERANCE for ends in zip(*corners, strict=True))
    width, height = size_wh
    fits = right <= width and bottom <= height
    return not fits and right <= height and bottom <= width


class LeftOutBoxes:
    """Counts the boxes that are left out, by reason, and keeps the first box per reason.

    Args:
        path: Annotation file, for the message.
    """

    def __init__(self, path: str) -> None:
        self.path, self.total = path, 0
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.swapped: list[str] = []

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count boxes that are left out; ``example`` describes one of them."""
        self.counts[reason] += count
        self.examples.setdefault(reason, example)

    def add_image(self, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> None:
        """Count the boxes of an image.

        Args:
            image: COCO image with ``file_name``, ``width`` and ``height``.
            annotations: All COCO annotations of the image.
        """
        size_wh = image["width"], image["height"]
        self.total += len(annotations)
        for item in annotations:
            reason = why_left_out(item["bbox"], item["area"], size_wh, item.get("ignore"))
            if reason is not None:
                self.add(
                    reason,
                    f"annotation {item['id']} of {image['file_name']} ({size_wh[0]} x "
                    f"{size_wh[1]}), bbox {item['bbox']}",
                )
        if looks_swapped((item["bbox"] for item in annotations), size_wh):
            self.swapped.append(f"{image['file_name']} ({size_wh[0]} x {size_wh[1]})")

    def message(self) -> str:
        """Describe the boxes that are left out; ``''`` if there are none."""
        parts = [
            f"{count} {reason}, such as {self.examples[reason]}"
            for reason, count in self.counts.items()
        ]
        text = ""
        if parts:
            text = f"{sum(self.counts.values())} of {self.total} boxes are left out of training: "
            text += "; ".join(parts) + "."
        if self.swapped:
            text += (
                " Images whose stated size looks swapped, as where EXIF turns a photograph: "
                f"{len(self.swapped)}. The boxes of {self.swapped[0]} fit only with width "
                "and height swapped. Write the size of the image as it is displayed."
            )
        return text.strip()

    def report(self) -> None:
        """Log the message as a warning, if there is one."""
        if text := self.message():
            print_log(f"{self.path}: {text}", "current", logging.WARNING)


def left_out_boxes(path: str, content: Mapping[str, Any]) -> LeftOutBoxes:
    """Count the boxes of a checked COCO file that mmdet does not train on.

    Args:
        path: The file, for the message.
        content: Content of the file, see :class:`dap.coco_file.CocoFile`.
    """
    per_image: dict[Any, list[Any]] = {item["id"]: [] for item in content["images"]}
    for item in content["annotations"]:
        per_image[item["image_id"]].append(item)
    boxes = LeftOutBoxes(path)
    for image in content["images"]:
        boxes.add_image(image, per_image[image["id"]])
    return boxes
