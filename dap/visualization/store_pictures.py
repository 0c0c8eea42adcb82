"""Draw the images of a store as tiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dap.cam import MergedCam
from dap.images.image_files import check_size, read_image
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.store.masks import decode_mask
from dap.store.reader import PseudoBoxStore

from .gallery import colour_of, draw_tile

GREY = 180  # of the canvas that replaces an unreadable image


@dataclass(frozen=True, eq=False)
class StoredImage:
    """The content of a store for one image.

    Attributes:
        index: Index of the image in the store.
        file_name: Path relative to the root of the images.
        size_hw: Height and width in pixels; 0 for an image that could not be used.
        boxes: xyxy, half-open, in pixels, shape (N, 4).
        labels: Label of each box, shape (N,).
        thresholds: Index of τ of each box, shape (N,); 255 if it is not known.
        masks: Mask of each box, see :func:`dap.store.masks.decode_mask`; None if the store has no
            masks.
    """

    index: int
    file_name: str
    size_hw: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    thresholds: np.ndarray
    masks: list[str] | None = None


def stored_image(store: PseudoBoxStore, index: int) -> StoredImage:
    """Look up an image by its index in the store."""
    shard, row = store.locate(index)
    size_hw = int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row])
    masks = shard.masks_of(row) if shard.has_masks else None
    return StoredImage(index, shard.file_name(row), size_hw, *shard.boxes_of(row), masks)


class StorePictures:
    """Draws images of a store with boxes, masks and, given a classifier, maps.

    Args:
        store: The boxes.
        image_root: Folder of the images. Defaults to the one that the store was made from.
        maps: Computes the maps; None to draw boxes alone.
        side: Side of a tile in pixels.

    Attributes:
        truth: Index of the image → true boxes, xyxy, half-open, in pixels, shape (M, 4). Empty
            until it is set.
        unreadable: File name → reason, of images that could not be read, or whose map could not be
            computed.
    """

    def __init__(
        self,
        store: PseudoBoxStore,
        image_root: str | os.PathLike[str] | None = None,
        maps: StoredMaps | None = None,
        side: int = 240,
    ) -> None:
        self.store, self.maps, self.side = store, maps, side
        self.truth: Mapping[int, np.ndarray] = {}
        self.root = os.fspath(image_root or store.manifest["image_list"]["root"])
        self.unreadable: dict[str, str] = {}
        self._cached_picture = lru_cache(maxsize=8)(self._picture)
        self._maps: dict[int, dict[int, MergedCam]] = {}

    def tile(
        self,
        image: StoredImage,
        boxes: np.ndarray | None = None,
        thresholds: np.ndarray | None = None,
        side: int | None = None,
    ) -> np.ndarray:
        """Draw an image with its boxes and their masks, or with other boxes, largest first.

        An image that cannot be read becomes a grey tile.

        Args:
            image: The image.
            boxes: Boxes to draw in place of those of the store, xyxy, half-open, shape (N, 4).
            thresholds: Index of τ of each box, shape (N,).
            side: Side of the tile in pixels. Defaults to that of the constructor.
        """
        masks: list[str] = []
        if boxes is None or thresholds is None:
            boxes, thresholds, masks = image.boxes, image.thresholds, image.masks or []
        order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
        colours = [colour_of(int(thresholds[i]), self.store.thresholds) for i in order]
        picture = self._cached_picture(image.file_name, image.size_hw)
        heat = None
        if len(image.labels) and (cam := self.merged(image, int(image.labels[0]))) is not None:
            heat = cam.over_image(picture.shape[:2])
        truth = self.truth.get(image.index)
        drawn = [decode_mask(masks[i], image.size_hw) for i in order] if masks else []
        return draw_tile(picture, boxes[order], colours, heat, truth, side or self.side, drawn)

    def compute_maps(self, images: Iterable[StoredImage]) -> None:
        """Compute and keep the maps of all classes of several images.

        This is faster than one image at a time. Known maps are not computed again.
        """
        if self.maps is None:
            return
        missing = {i.index: i for i in images if len(i.labels) and i.index not in self._maps}
        items = [(i.file_name, np.unique(i.labels).tolist()) for i in missing.values()]
        computed = self.maps.of_images(items, self.root)
        for image, result in zip(missing.values(), computed, strict=True):
            if result.error is not None:
                self.unreadable[image.file_name] = result.error
            # An image of another size than in the store is rejected when it is drawn.
            usable = result.size_hw == image.size_hw
            self._maps[image.index] = result.by_label if usable else {}

    def merged(self, image: StoredImage, label: int) -> MergedCam | None:
        """Return the map of an image for one of its classes.

        None without a classifier, if the image cannot be read, or if its map cannot be computed.
        """
        self.compute_maps([image])
        return self._maps.get(image.index, {}).get(label)

    def _picture(self, file_name: str, size_hw: tuple[int, int]) -> np.ndarray:
        try:
            image = read_image(os.path.join(self.root, file_name))
            check_size(image, size_hw)
            return image.numpy().transpose(1, 2, 0).copy()
        except (OSError, ValueError, MemoryError) as error:
            self.unreadable[file_name] = f"{type(error).__name__}: {error}"
            return np.full((*(size_hw if all(size_hw) else (400, 400)), 3), GREY, np.uint8)
