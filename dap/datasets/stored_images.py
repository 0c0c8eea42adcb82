"""Images of a store as mmdet's ``data_list``, and the boxes that are not trained on."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from dap.coco_boxes import OUTSIDE, SMALL, LeftOutBoxes
from dap.store.masks import segmentation
from dap.store.reader import PseudoBoxStore
from dap.store.shard import Shard, exact


class ImageLayout(NamedTuple):
    """Values that the entries of all images share.

    Attributes:
        prefix: Prepended to relative file names; it ends with a slash unless it is empty.
        seg_prefix: Folder of the segmentation maps, or None.
        seg_suffix: Suffix of the segmentation maps.
        constants: Items that each entry has in addition.
    """

    prefix: str
    seg_prefix: str | None
    seg_suffix: str
    constants: dict[str, Any]

    def seg_map_path(self, name: str) -> str | None:
        """Path of the segmentation map of an image, or None."""
        if not self.seg_prefix:
            return None
        return osp.join(self.seg_prefix, name.rsplit(".", 1)[0] + self.seg_suffix)


class StoredImages(Sequence[dict[str, Any]]):
    """Images of a store as mmdet's ``data_list``; each entry is made on access.

    Args:
        store: The store.
        indices: Indices of the images in the store, shape (N,).
        layout: Values that all entries share.
        shards: The shards of the store if they were opened before, for sharing.
    """

    def __init__(
        self,
        store: PseudoBoxStore,
        indices: np.ndarray,
        layout: ImageLayout,
        shards: Sequence[_ShardValues] = (),
    ) -> None:
        self.store, self.indices, self._layout = store, indices, layout
        self._shards = shards or [_ShardValues(shard) for shard in store.shards]
        self._shard_size = store.shard_size

    def __reduce__(self) -> tuple[type[StoredImages], tuple[Any, ...]]:
        return StoredImages, (self.store, self.indices, self._layout)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredImages:
        return self.take(self.indices)  # the content is never modified

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> StoredImages: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | StoredImages:
        if isinstance(index, slice):
            return self.take(self.indices[index])
        number, row = divmod(self.indices.item(index), self._shard_size)
        shard = self._shards[number]
        name = shard.file_name(row)
        layout, height, width = self._layout, shard.heights[row], shard.widths[row]
        return {
            "img_path": name if name[:1] == "/" else layout.prefix + name,
            "img_id": shard.ids[row],
            "seg_map_path": layout.seg_map_path(name),
            "height": height,
            "width": width,
            **(copy.deepcopy(layout.constants) if layout.constants else {}),
            "instances": shard.instances(row, 100 * width, 100 * height),
        }

    def take(self, indices: np.ndarray) -> StoredImages:
        """Return other images of the same store, by their indices in it."""
        return StoredImages(self.store, indices, self._layout, self._shards)


def left_out_boxes(path: str, store: PseudoBoxStore) -> LeftOutBoxes:
    """Count the boxes of a store that are not trained on, by the rule of :class:`StoredImages`."""
    boxes = LeftOutBoxes(path)
    for shard in store.shards:
        corners = np.floor(100.0 * shard.bboxes + 0.5)
        rows = np.repeat(np.arange(len(shard)), np.diff(shard.starts))
        size_wh = 100.0 * np.stack(shard.sizes_hw[::-1], axis=1)[rows]
        small = ((corners[:, 2:] - corners[:, :2]) < 100).any(axis=1)
        outside = ((corners[:, :2] >= size_wh) | (corners[:, 2:] <= 0)).any(axis=1) & ~small
        boxes.total += len(corners)
        for reason, mask in ((SMALL, small), (OUTSIDE, outside)):
            if count := int(mask.sum()):
                first = int(mask.argmax())
                boxes.add(reason, _describe(shard, int(rows[first]), first), count)
        for row in _swapped_rows(shard, corners):
            height, width = (int(side[row]) for side in shard.sizes_hw)
            boxes.swapped.append(f"{shard.file_name(row)} ({width} x {height})")
    return boxes


def _describe(shard: Shard, row: int, box: int) -> str:
    """Describe a box and its image, for the log."""
    height, width = (int(side[row]) for side in shard.sizes_hw)
    corners = exact(shard.bboxes[box]).tolist()
    name = f"image {shard.ids[row]}, {shard.file_name(row)} ({width} x {height})"
    return f"{name}, x1 y1 x2 y2 {corners}"


def _swapped_rows(shard: Shard, corners: np.ndarray) -> list[int]:
    """Images of a shard whose size looks swapped, see :func:`dap.coco_boxes.looks_swapped`.

    Args:
        shard: The shard.
        corners: Its boxes in hundredths of a pixel, xyxy, shape (M, 4).
    """
    filled = np.flatnonzero(np.diff(shard.starts))
    if not len(filled):
        return []
    ends = np.maximum.reduceat(corners[:, 2:], shard.starts[:-1][filled]) - 100.0
    size_wh = 100.0 * np.stack(shard.sizes_hw[::-1], axis=1)[filled]
    fits = (ends <= size_wh).all(axis=1)
    fits_swapped = (ends <= size_wh[:, ::-1]).all(axis=1)
    swapped: list[int] = filled[~fits & fits_swapped].tolist()
    return swapped


class _ShardValues:
    """A shard as Python numbers, which are faster than numpy for the few boxes per image."""

    __slots__ = ("_boxes", "_labels", "_mask", "_starts", "file_name", "heights", "ids", "widths")

    def __init__(self, shard: Shard) -> None:
        # A memoryview shares the memory of the array, and its items are Python's numbers.
        self.file_name = shard.file_name
        self._mask = shard.mask if shard.has_masks else None
        view: Callable[[Any], memoryview] = memoryview
        self.ids, self.heights, self.widths = map(view, (shard.ids, *shard.sizes_hw))
        self._starts, self._labels = view(shard.starts), view(shard.labels)
        self._boxes = view(shard.bboxes.reshape(-1))

    def instances(self, row: int, width: int, height: int) -> list[dict[str, Any]]:
        """Instances of an image that ``CocoDataset`` would read from the COCO file.

        The floats are identical to those read from the file, which stores x1, y1 and the sides as
        the floats nearest to their hundredths.

        Args:
            row: Index of the image in the shard.
            width: Its width in hundredths of a pixel, the unit that boxes are rounded to.
            height: Its height in the same unit.
        """
        first, last = self._starts[row], self._starts[row + 1]
        units = iter([(100.0 * c + 0.5) // 1.0 for c in self._boxes[4 * first : 4 * last]])
        instances = []
        labels = self._labels[first:last]
        corners = zip(units, units, units, units, labels, strict=True)
        for box, (x1, y1, x2, y2, label) in enumerate(corners, first):
            w, h = x2 - x1, y2 - y1
            if w < 100.0 or h < 100.0 or x1 >= width or y1 >= height or x2 <= 0.0 or y2 <= 0.0:
                continue
            x, y = x1 / 100.0, y1 / 100.0
            bbox = [x, y, x + w / 100.0, y + h / 100.0]
            instance = {"ignore_flag": 0, "bbox": bbox, "bbox_label": label}
            if self._mask is not None:
                size_hw = height // 100, width // 100
                instance["mask"] = segmentation(self._mask(box), size_hw)
            instances.append(instance)
        return instances
