"""A store of pseudo boxes as mmdet's training set, memory-mapped."""

from __future__ import annotations

import copy
import os.path as osp
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from mmdet.datasets import BaseDetDataset

from dap.coco_boxes import OUTSIDE, SMALL, LeftOutBoxes
from dap.registry import DATASETS
from dap.store.masks import segmentation
from dap.store.reader import PseudoBoxStore
from dap.store.shard import Shard, exact

from .checked_coco_dataset import check_categories, check_mask_loading, no_box_to_train_on


@DATASETS.register_module()
class PseudoBoxDataset(BaseDetDataset):
    """The boxes of Step 2 without the COCO file: what is needed is read when it is needed.

    ::

        dict(type='dap.PseudoBoxDataset',
             ann_file='work_dirs/boxes_resnet50_in1k/manifest.json',
             data_prefix=dict(img='data/imagenet/train/'),
             filter_cfg=dict(filter_empty_gt=True),
             pipeline=[...])

    It has the samples that mmdet's ``CocoDataset`` has with ``annotations.json`` of the same
    folder, in the same order, box by box and by the same rules: boxes less than a pixel wide or
    high are skipped, counted and named, ``filter_empty_gt`` drops the images that have no box at
    all. But it is open in seconds, and all processes of a machine share the memory: an index of
    four bytes an image is all that each holds.

    Where the store has masks, ``LoadAnnotations(with_bbox=True, with_mask=True)`` loads them, as
    bitmaps.

    The categories of the store, in its order, are the classes. ``metainfo.classes`` may list them
    to have them compared.

    Some images may be held out to validate on: ``part='val'`` has those, ``part='train'`` all
    others. They are chosen evenly from the images with boxes, in the order of the store, so that
    the same store always gives the same ones, and class folders about as many each.

    Args:
        ann_file: Folder of a finished run, or its ``manifest.json``.
        part: ``'train'``, ``'val'``, or None for all images.
        held_out: Images of ``'val'``, but no more than a tenth of those with boxes (at least one).
        **kwargs: Those of mmdet's ``BaseDetDataset`` other than ``proposal_file``;
            ``serialize_data`` has no effect. ``filter_cfg`` has the keys of ``CocoDataset``.

    Raises:
        ValueError: If there is no finished store, it is damaged, its categories are not those of
            ``metainfo.classes``, no box is left, the pipeline loads masks that the store does not
            have, or as polygons, or ``part`` or ``held_out`` is out of range.
    """

    def __init__(
        self,
        ann_file: str = "",
        *args: Any,
        part: str | None = None,
        held_out: int = 1000,
        **kwargs: Any,
    ) -> None:
        if part not in (None, "train", "val") or held_out < 1:
            raise ValueError(
                f"PseudoBoxDataset: part={part!r}, held_out={held_out!r}; expected part 'train', "
                "'val' or None, and held_out from 1"
            )
        self.part, self.held_out = part, held_out
        if kwargs.get("proposal_file") is not None:
            raise ValueError(
                "PseudoBoxDataset takes no proposal_file: nothing is held per image. Train with "
                "dap.CheckedCocoDataset on the annotations.json of the same folder"
            )
        kwargs["serialize_data"] = False
        super().__init__(ann_file, *args, **kwargs)

    def load_data_list(self) -> StoredImages:
        """Open the store; there must be at least one box."""
        store = PseudoBoxStore(self.ann_file)
        names = tuple(category["name"] for category in store.categories)
        if not self._metainfo.get("classes"):
            self._metainfo["classes"] = names
        check_categories(
            self.ann_file,
            names,
            self._metainfo["classes"],
            leave_out="to leave some out: dap.CheckedCocoDataset with the annotations.json of the "
            "same folder and allow_unused=True",
        )
        check_mask_loading(self.ann_file, self.pipeline, store.has_masks)
        usable = [shard.sizes_hw[0] > 0 for shard in store.shards]
        indices = _indices(usable)
        if self.part is not None:
            with_boxes = [np.diff(shard.starts) > 0 for shard in store.shards]
            both = [a & b for a, b in zip(usable, with_boxes, strict=True)]
            held_out = evenly_held_out(_indices(both), self.held_out)
            is_train = self.part == "train"
            indices = np.setdiff1d(indices, held_out) if is_train else held_out
        images = StoredImages(store, indices, self._layout())
        if not self.test_mode:
            left_out = _left_out_boxes(self.ann_file, store)
            left_out.report()
            if left_out.total == sum(left_out.counts.values()):
                raise no_box_to_train_on(self.ann_file, len(images), left_out.message())
        return images

    def filter_data(self) -> StoredImages:
        """Leave out images without any box, and small ones, as ``CocoDataset`` does."""
        images: StoredImages = self.data_list
        if self.test_mode or self.filter_cfg is None:
            return images
        empty_too = not self.filter_cfg.get("filter_empty_gt", False)
        min_size = self.filter_cfg.get("min_size", 0)
        keep = [
            (np.minimum(*shard.sizes_hw) >= min_size) & (empty_too | (np.diff(shard.starts) > 0))
            for shard in images.store.shards
        ]
        return images.take(images.indices[np.concatenate(keep)[images.indices]])

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """An image with its boxes, made anew: whoever gets it may change it."""
        if not self._fully_initialized:
            self.full_init()
        info: dict[str, Any] = self.data_list[idx]
        info["sample_idx"] = idx if idx >= 0 else len(self) + idx
        return info

    def _layout(self) -> _Layout:
        if "img" not in self.data_prefix:
            raise ValueError(
                f"data_prefix has {sorted(self.data_prefix)}; expected 'img', the folder that the "
                "file names of the images are relative to"
            )
        constants = {}
        if self.return_classes:
            constants = {
                "text": self._metainfo["classes"],
                "caption_prompt": self.caption_prompt,
                "custom_entities": True,
            }
        seg = self.data_prefix.get("seg")
        # A join with "" ends the folder with a slash, unless there is none.
        return _Layout(osp.join(self.data_prefix["img"], ""), seg, self.seg_map_suffix, constants)

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> StoredImages:
        if isinstance(indices, Sequence):
            images: StoredImages = self.data_list
            return images.take(images.indices[np.asarray(indices, np.intp)])
        return super()._get_unserialized_subset(indices)


class _Layout(NamedTuple):
    """What the entries of all images have in common."""

    prefix: str
    seg_prefix: str | None
    seg_suffix: str
    constants: dict[str, Any]

    def seg_map_path(self, name: str) -> str | None:
        """Path of the map of segments of an image."""
        if not self.seg_prefix:
            return None
        return osp.join(self.seg_prefix, name.rsplit(".", 1)[0] + self.seg_suffix)


class StoredImages(Sequence[dict[str, Any]]):
    """Images of a store as mmdet's ``data_list``; each entry is made when it is asked for.

    Args:
        store: Where they are.
        indices: Which of its images, shape (N,).
        layout: What the entries have in common.
        shards: Those of the store, if they are at hand.
    """

    def __init__(
        self,
        store: PseudoBoxStore,
        indices: np.ndarray,
        layout: _Layout,
        shards: Sequence[_Numbers] = (),
    ) -> None:
        self.store, self.indices, self._layout = store, indices, layout
        self._shards = shards or [_Numbers(shard) for shard in store.shards]
        self._shard_size = store.shard_size

    def __reduce__(self) -> tuple[type[StoredImages], tuple[Any, ...]]:
        return StoredImages, (self.store, self.indices, self._layout)

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredImages:
        return self.take(self.indices)  # nothing of it ever changes

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
        """Other images of the same store."""
        return StoredImages(self.store, indices, self._layout, self._shards)


def evenly_held_out(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose images at even distances.

    Args:
        indices: Those to choose from, sorted, shape (N,).
        count: How many; at most a tenth of them are taken, but at least one if there is one.

    Returns:
        The middles of as many equal stretches, sorted, shape (M,).
    """
    taken = min(count, max(1, len(indices) // 10), len(indices))
    return indices[(2 * np.arange(taken) + 1) * len(indices) // (2 * max(1, taken))]


def _indices(chosen: Sequence[np.ndarray]) -> np.ndarray:
    """Turn masks, one per shard, into the indices of the images."""
    mask = np.concatenate([np.zeros(0, bool), *chosen])
    return np.flatnonzero(mask).astype(np.int32)


def _left_out_boxes(path: str, store: PseudoBoxStore) -> LeftOutBoxes:
    """Count the boxes of a store that are not trained on, by the rule of :class:`_Numbers`."""
    boxes = LeftOutBoxes(path)
    for shard in store.shards:
        corners = np.floor(100.0 * shard.bboxes + 0.5)
        rows = np.repeat(np.arange(len(shard)), np.diff(shard.starts))
        size_wh = 100.0 * np.stack(shard.sizes_hw[::-1], axis=1)[rows]
        small = ((corners[:, 2:] - corners[:, :2]) < 100).any(axis=1)
        outside = ((corners[:, :2] >= size_wh) | (corners[:, 2:] <= 0)).any(axis=1) & ~small
        boxes.total += len(corners)
        for reason, chosen in ((SMALL, small), (OUTSIDE, outside)):
            if count := int(chosen.sum()):
                first = int(chosen.argmax())
                boxes.add(reason, _named(shard, int(rows[first]), first), count)
        for row in _swapped_rows(shard, corners):
            height, width = (int(side[row]) for side in shard.sizes_hw)
            boxes.swapped.append(f"{shard.file_name(row)} ({width} x {height})")
    return boxes


def _named(shard: Shard, row: int, box: int) -> str:
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


class _Numbers:
    """A shard as plain numbers: for the few of an image, numpy's calls would take longer."""

    __slots__ = ("_boxes", "_labels", "_mask", "_starts", "file_name", "heights", "ids", "widths")

    def __init__(self, shard: Shard) -> None:
        self.file_name = shard.file_name
        self._mask = shard.mask if shard.has_masks else None
        self.ids, (self.heights, self.widths) = _plain(shard.ids), map(_plain, shard.sizes_hw)
        self._starts, self._labels = _plain(shard.starts), _plain(shard.labels)
        self._boxes = _plain(shard.bboxes.reshape(-1))

    def instances(self, row: int, width: int, height: int) -> list[dict[str, Any]]:
        """The boxes of an image that ``CocoDataset`` would take from the COCO file.

        Floats are equal to the last bit: the file has x1, y1 and the sides, each the float next to
        its hundredths.

        Args:
            row: The image.
            width: Its width in hundredths of a pixel, as boxes are rounded.
            height: Its height, likewise.
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


def _plain(numbers: Any) -> memoryview:
    """The same memory; its items are Python's numbers."""
    return memoryview(numbers)
