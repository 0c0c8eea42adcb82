"""A store of pseudo boxes as mmdet's training set, memory-mapped."""

from __future__ import annotations

import os.path as osp
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset

from dap.registry import DATASETS
from dap.store.reader import PseudoBoxStore

from .checked_coco_dataset import check_categories, check_mask_loading, no_box_to_train_on
from .stored_images import ImageLayout, StoredImages, left_out_boxes


@DATASETS.register_module()
class PseudoBoxDataset(BaseDetDataset):
    """The boxes of Step 2, read on demand from their store instead of from a COCO file.

    ::

        dict(type='dap.PseudoBoxDataset',
             ann_file='work_dirs/boxes_resnet50_in1k/manifest.json',
             data_prefix=dict(img='data/imagenet/train/'),
             filter_cfg=dict(filter_empty_gt=True),
             pipeline=[...])

    The samples, their order and their boxes are those of mmdet's ``CocoDataset`` with
    ``annotations.json`` of the same folder: boxes less than a pixel wide or high are skipped,
    counted and named in a warning, and ``filter_empty_gt`` drops images without any box. Unlike a
    COCO file, a store opens in seconds, and all processes of a machine share its memory; each
    process holds only an index of four bytes per image.

    If the store has masks, ``LoadAnnotations(with_bbox=True, with_mask=True)`` loads them as
    bitmaps.

    The classes are the categories of the store, in its order. If ``metainfo.classes`` is set, it is
    compared with them.

    Images can be held out for validation: ``part='val'`` has those images, ``part='train'`` all
    others. They are spaced evenly over the images with boxes, in the order of the store, so that
    the choice is reproducible and contains about equally many images of each class folder.

    Args:
        ann_file: Folder of a finished run, or its ``manifest.json``.
        part: ``'train'``, ``'val'``, or None for all images.
        held_out: Number of images of ``'val'``; at most a tenth of those with boxes, at least one.
        **kwargs: Arguments of mmdet's ``BaseDetDataset`` except ``proposal_file``;
            ``serialize_data`` has no effect. ``filter_cfg`` has the keys of ``CocoDataset``.

    Raises:
        ValueError: If there is no finished store or it is damaged; if its categories differ from
            ``metainfo.classes``; if no box is left; if the pipeline loads masks that the store does
            not have, or loads them as polygons; if ``part`` or ``held_out`` is out of range.
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
                "PseudoBoxDataset takes no proposal_file, since it holds nothing per image. Train "
                "with dap.CheckedCocoDataset on the annotations.json of the same folder"
            )
        kwargs["serialize_data"] = False
        super().__init__(ann_file, *args, **kwargs)

    def load_data_list(self) -> StoredImages:
        """Open the store; in training, raise ``ValueError`` if there is no box."""
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
            left_out = left_out_boxes(self.ann_file, store)
            left_out.report()
            if left_out.total == sum(left_out.counts.values()):
                raise no_box_to_train_on(self.ann_file, len(images), left_out.message())
        return images

    def filter_data(self) -> StoredImages:
        """Filter images without boxes and small images, as ``CocoDataset`` does."""
        images: StoredImages = self.data_list
        if self.test_mode or self.filter_cfg is None:
            return images
        keep_empty = not self.filter_cfg.get("filter_empty_gt", False)
        min_size = self.filter_cfg.get("min_size", 0)
        keep = [
            (np.minimum(*shard.sizes_hw) >= min_size) & (keep_empty | (np.diff(shard.starts) > 0))
            for shard in images.store.shards
        ]
        return images.take(images.indices[np.concatenate(keep)[images.indices]])

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return an image with its boxes as a new dict, which the caller may modify."""
        if not self._fully_initialized:
            self.full_init()
        info: dict[str, Any] = self.data_list[idx]
        info["sample_idx"] = idx if idx >= 0 else len(self) + idx
        return info

    def _layout(self) -> ImageLayout:
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
        # Joining "" appends a slash to a folder, and keeps an empty prefix empty.
        prefix, seg_prefix = osp.join(self.data_prefix["img"], ""), self.data_prefix.get("seg")
        return ImageLayout(prefix, seg_prefix, self.seg_map_suffix, constants)

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> StoredImages:
        if isinstance(indices, Sequence):
            images: StoredImages = self.data_list
            return images.take(images.indices[np.asarray(indices, np.intp)])
        return super()._get_unserialized_subset(indices)


def evenly_held_out(indices: np.ndarray, count: int) -> np.ndarray:
    """Choose images at even distances: the middles of ``count`` equal parts.

    Args:
        indices: Indices to choose from, sorted, shape (N,).
        count: How many; at most a tenth of them are chosen, but at least one if there is any.

    Returns:
        The chosen indices, sorted, shape (M,).
    """
    taken = min(count, max(1, len(indices) // 10), len(indices))
    return indices[(2 * np.arange(taken) + 1) * len(indices) // (2 * max(1, taken))]


def _indices(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Turn masks, one per shard, into indices of images."""
    mask = np.concatenate([np.zeros(0, bool), *masks])
    return np.flatnonzero(mask).astype(np.int32)
