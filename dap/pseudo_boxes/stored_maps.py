"""The maps of a finished run, computed again for the images that are looked at or judged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from dap._malloc import tune_malloc
from dap.cam import MergedCam, Rule, ScaleMaps, merge_scales
from dap.devices import chosen_device, computing_on
from dap.images.labelled_images import LabelledImages
from dap.images.reading import CHUNK
from dap.store.reader import PseudoBoxStore

from .classifier import CamClassifier, evaluating
from .from_config import build_classifier
from .pipeline import Pipeline
from .settings import Execution, PseudoBoxSettings
from .window import ImageMaps


class StoredMap(NamedTuple):
    """The maps of an image of a store.

    Attributes:
        file_name: Name of the image in the store.
        size_hw: Its height and width in pixels; 0 if it cannot be read.
        by_label: Class → the map that its boxes are taken from, shape (1, h, w), on the CPU.
        error: Why there are no maps, or None.
    """

    file_name: str
    size_hw: tuple[int, int]
    by_label: dict[int, MergedCam]
    error: str | None


class StoredMaps:
    """Activation maps of images of a store, as they were when the boxes were made.

    Equal up to rounding: on another device, with autocast or another decoder, to its rounding.

    Args:
        store: The boxes.
        model: The classifier that made them, with its weights.
        image_root: Folder of the images. Defaults to the one that the store was made from.

    Raises:
        ValueError: If the store was not made by this classifier, or not by Step 2.
    """

    def __init__(
        self,
        store: PseudoBoxStore,
        model: nn.Module,
        image_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings = PseudoBoxSettings.from_store(store)
        self._classifier = CamClassifier(model, self.settings.map_method)
        given = self._classifier.weights_sha256()
        expected = store.manifest["classifier"].get("weights_sha256")
        if given != expected:
            raise ValueError(
                f"{store.folder} was made with other weights (SHA-256 {str(expected)[:16]}…) than "
                f"those given ({given[:16]}…), or with another normalisation. Give the config and "
                f"the checkpoint of that run: {store.manifest.get('checkpoint')}"
            )
        self._tf32 = bool(store.manifest.get("computation", {}).get("tf32", False))
        self._classifier.speed_up()
        if self._classifier.device.type == "cpu":
            tune_malloc()
        self.root = os.fspath(image_root or store.manifest["image_list"]["root"])

    @classmethod
    def from_config(
        cls,
        store: PseudoBoxStore,
        config: Config,
        checkpoint: str,
        image_root: str | os.PathLike[str] | None = None,
        device: str | None = None,
    ) -> StoredMaps:
        """With the classifier of an mmpretrain config.

        Args:
            store: The boxes.
            config: Config with ``model``.
            checkpoint: Its weights: file or URL.
            image_root: Folder of the images. Defaults to the one that the store was made from.
            device: Where to compute. Defaults to CUDA if there is any, else the CPU.

        Raises:
            ValueError: If config, checkpoint and store do not fit together.
        """
        init_default_scope("mmpretrain")
        place = chosen_device(device)
        model, _ = build_classifier(config, checkpoint)
        model.to(place)
        return cls(store, model, image_root)

    def of_images(
        self,
        items: Sequence[tuple[str, Sequence[int]]],
        image_root: str | os.PathLike[str] | None = None,
    ) -> Iterator[StoredMap]:
        """Compute maps as Step 2 does: read ahead, batched by shape, with the fast forward.

        The maps of a window of images are in memory at a time.

        Args:
            items: Names of images in the store, each with the classes whose maps are wanted.
            image_root: Folder of the images, where it is another than that of this object.

        Yields:
            The maps of each image, in the order of ``items``. One that cannot be read, or whose
            map cannot be computed or is not finite, has the reason in their place.
        """
        if not items:
            return
        images = LabelledImages(_Requests(items, os.fspath(image_root or self.root)))
        few = len(items) < CHUNK  # not worth the start of processes that read
        execution = Execution(num_workers=0 if few else None, tf32=self._tf32)
        device = self._classifier.device
        with evaluating(self._classifier.model), computing_on(device, self._tf32):
            pipeline = Pipeline(images, self._classifier, self.settings, execution)
            names = (name for name, _ in items)
            for window in pipeline.maps([range(len(items))]):
                for image in window:
                    yield _stored_map(next(names), image, self.settings.rule)

    def score_maps(
        self, items: Sequence[tuple[str, Sequence[int]]]
    ) -> Iterator[dict[int, np.ndarray] | str]:
        """Compute maps at the size of their images, for ``dap.evaluation.evaluate_boxes``.

        Args:
            items: Names of images in the store, each with the classes whose maps are wanted.

        Yields:
            For each image label → map in [0, 1], float32, shape (H, W); or why there is none.
        """
        for image in self.of_images(items):
            if image.error is not None:
                yield image.error
            else:
                yield {
                    label: cam.over_image(image.size_hw) for label, cam in image.by_label.items()
                }


class _Requests:
    """Images of a store with the classes asked for, as a data set."""

    def __init__(self, items: Sequence[tuple[str, Sequence[int]]], root: str) -> None:
        self.items, self.data_root = items, root

    def full_init(self) -> None:
        """There is nothing to load."""

    def __len__(self) -> int:
        return len(self.items)

    def get_data_info(self, index: int) -> dict[str, Any]:
        name, labels = self.items[index]
        return {"img_path": os.path.join(self.data_root, name), "gt_label": list(labels)}


def _stored_map(file_name: str, image: ImageMaps, rule: Rule) -> StoredMap:
    """Merge the scales of an image."""
    if image.error is not None:
        return StoredMap(file_name, image.size_hw, {}, image.error)
    scales = [
        ScaleMaps(torch.from_numpy(maps), stride, size_hw) for maps, stride, size_hw in image.scales
    ]
    maps, cell_size = merge_scales(scales, image.size_hw, rule)
    if not maps.isfinite().all():
        error = "FloatingPointError: the activation map is NaN or infinite"
        return StoredMap(file_name, image.size_hw, {}, error)
    by_label = {
        label: MergedCam(maps[i : i + 1], cell_size)
        for i, label in enumerate(image.entry.labels.tolist())
    }
    return StoredMap(file_name, image.size_hw, by_label, None)
