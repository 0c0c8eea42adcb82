"""Images that a store and a ground truth have in common, with the boxes of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dap.store.masks import segmentation
from dap.store.reader import PseudoBoxStore

from .ground_truth import GroundTruth
from .name_matching import match_categories, match_images


class MatchedImage(NamedTuple):
    """An image of the store with its ground truth.

    ``number`` is its index in the store. ``size_hw`` is (0, 0) if Step 2 could not use the image.
    """

    number: int
    file_name: str
    size_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    thresholds: np.ndarray
    truth_boxes: np.ndarray
    truth_labels: np.ndarray
    truth_ignored: np.ndarray
    masks: list[dict[str, Any]]
    truth_masks: list[dict[str, Any]]

    def counted(self) -> np.ndarray:
        """Mask of the true boxes that have a known class and are not ignored, shape (M,)."""
        return ~self.truth_ignored & (self.truth_labels >= 0)

    def counted_labels(self) -> list[int]:
        """Distinct labels of these boxes, in ascending order."""
        return np.unique(self.truth_labels[self.counted()]).tolist()


class Matching:
    """Images that store and ground truth have in common, in the order of the store.

    Args:
        store: The store.
        truth: The ground truth.
        class_agnostic: Whether classes are disregarded, as they are if the truth has none.

    Raises:
        ValueError: If no image or no category matches.
    """

    def __init__(self, store: PseudoBoxStore, truth: GroundTruth, class_agnostic: bool) -> None:
        self.store, self.truth = store, truth
        self.class_agnostic = class_agnostic or truth.categories is None
        self.images = match_images(file_names(store), truth.names)
        self.failed = 0
        self.label_of = np.zeros(1, np.int64)
        if truth.categories is not None:
            self.label_of = match_categories(store.categories, truth.categories, class_agnostic)
        self.has_masks = store.has_masks and truth.masks is not None

    def __iter__(self) -> Iterator[MatchedImage]:
        self.failed = 0
        for index in sorted(self.images):
            image = self.image(index)
            self.failed += not image.size_hw[0]
            yield image

    def image(self, index: int) -> MatchedImage:
        """Return one of the images by its index in the store."""
        shard, row = self.store.locate(index)
        boxes, labels, thresholds = shard.boxes_of(row)
        truth_boxes, categories, ignored = self.truth.objects_of(self.images[index])
        truth_labels = self.label_of[categories]
        known = (truth_labels >= 0) | self.class_agnostic
        size_hw = int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row])
        masks = shard.masks_of(row) if self.has_masks else []
        truth_masks = self.truth.masks_of(self.images[index])
        if truth_masks and size_hw[0] and tuple(truth_masks[0]["size"]) != size_hw:
            raise ValueError(
                f"{shard.file_name(row)}: its true masks have {truth_masks[0]['size']} pixels (H, "
                f"W), the image {list(size_hw)}: use ground truth of the same image files"
            )
        return MatchedImage(
            index,
            shard.file_name(row),
            size_hw,
            boxes,
            labels,
            thresholds,
            truth_boxes[known],
            truth_labels[known],
            ignored[known],
            [segmentation(counts, size_hw) for counts in masks],
            [mask for mask, kept in zip(truth_masks, known, strict=False) if kept],
        )

    def report(self) -> dict[str, Any]:
        """Describe store and ground truth, and count what has no match on the other side."""
        manifest, truth = self.store.manifest, self.truth
        unknown = self.label_of < 0
        return {
            "store": {
                "identity": manifest["identity"],
                "rule": self.store.rule,
                "thresholds": self.store.thresholds,
                "nms_iou": manifest["settings"].get("nms_iou"),
            },
            "truth": {
                "layout": truth.layout,
                "images": len(truth.names),
                "objects": len(truth.boxes),
                "objects_without_area": truth.without_area,
            },
            "matched": {
                "images": len(self.images),
                "images_that_failed": self.failed,
                "truth_images_not_in_store": len(truth.names) - len(self.images),
                "store_images_not_in_truth": len(self.store) - len(self.images),
                "categories_not_in_store": int(unknown.sum()),
                "objects_of_categories_not_in_store": int(unknown[truth.labels].sum()),
            },
            "class_agnostic": self.class_agnostic,
        }


def file_names(store: PseudoBoxStore) -> Iterator[str]:
    """Iterate over the file names of the images of a store, in its order."""
    return (shard.file_name(row) for shard in store.shards for row in range(len(shard)))
