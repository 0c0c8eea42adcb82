"""The maps of a finished run, computed again for images that are drawn or evaluated."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from dap._malloc import tune_malloc
from dap.cam import MergedCam, Rule
from dap.devices import chosen_device, computing_on
from dap.images.labelled_images import LabelledImages
from dap.images.reading import CHUNK
from dap.runs.execution import Execution
from dap.store.reader import PseudoBoxStore

from .batched_maps import ImageMaps
from .classifier import CamClassifier, evaluating
from .from_config import build_classifier
from .pipeline import Pipeline
from .settings import PseudoBoxSettings


class StoredMap(NamedTuple):
    """The maps of an image of a store.

    Attributes:
        file_name: File name of the image in the store.
        size_hw: Height and width of the image in pixels; 0 if it cannot be read.
        by_label: Label → the map from which boxes are computed, shape (1, h, w), on the CPU.
        error: Why there are no maps, or None.
    """

    file_name: str
    size_hw: tuple[int, int]
    by_label: dict[int, MergedCam]
    error: str | None


class StoredMaps:
    """Activation maps of images of a store, as they were when the boxes were computed.

    They are equal up to rounding, which depends on the device, autocast and the image decoder.

    Args:
        store: The boxes.
        model: The classifier of the run, with its weights.
        image_root: Folder of the images. Defaults to the one that the store was made from.

    Raises:
        ValueError: If the store was not written by Step 2 with this classifier.
    """

    def __init__(
        self,
        store: PseudoBoxStore,
        model: nn.Module,
        image_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings = PseudoBoxSettings.from_store(store)
        self._classifier = CamClassifier(model, self.settings.map_method)
        weights_sha256 = self._classifier.weights_sha256()
        expected = store.manifest["classifier"].get("weights_sha256")
        if weights_sha256 != expected:
            raise ValueError(
                f"{store.folder} was made with other weights (SHA-256 {str(expected)[:16]}…) than "
                f"those given ({weights_sha256[:16]}…), or with another normalisation. Give the "
                f"config and the checkpoint of that run: {store.manifest.get('checkpoint')}"
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
        """Create with the classifier of an mmpretrain config.

        Args:
            store: The boxes.
            config: Config with ``model``.
            checkpoint: File or URL of the weights.
            image_root: Folder of the images. Defaults to the one that the store was made from.
            device: Device to compute on. Defaults to CUDA if available, else the CPU.

        Raises:
            ValueError: If config, checkpoint and store do not fit together.
        """
        init_default_scope("mmpretrain")
        model, _ = build_classifier(config, checkpoint)
        model.to(chosen_device(device))
        return cls(store, model, image_root)

    def of_images(
        self,
        items: Sequence[tuple[str, Sequence[int]]],
        image_root: str | os.PathLike[str] | None = None,
    ) -> Iterator[StoredMap]:
        """Compute maps as Step 2 does, with the maps of one window of images in memory at a time.

        Args:
            items: File names of images in the store, each with the labels of the maps to compute.
            image_root: Folder of the images. Defaults to :attr:`root`.

        Yields:
            The maps of each image, in the order of ``items``; or the reason why there are none, if
            the image cannot be read or a map cannot be computed or is not finite.
        """
        if not items:
            return
        images = LabelledImages.of_files(
            os.fspath(image_root or self.root),
            ((name, np.unique(np.asarray(labels, np.int64))) for name, labels in items),
        )
        few = len(items) < CHUNK  # for which starting processes takes longer than reading
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
        """Compute maps in the size of their images, for ``dap.evaluation.evaluate_boxes``.

        Args:
            items: File names of images in the store, each with the labels of the maps to compute.

        Yields:
            Per image label → map in [0, 1], float32, shape (H, W); or the reason why there is none.
        """
        for image in self.of_images(items):
            if image.error is not None:
                yield image.error
            else:
                yield {
                    label: cam.over_image(image.size_hw) for label, cam in image.by_label.items()
                }


def _stored_map(file_name: str, image: ImageMaps, rule: Rule) -> StoredMap:
    if image.error is not None:
        return StoredMap(file_name, image.size_hw, {}, image.error)
    try:
        maps, cell_size = image.merged(rule)
    except FloatingPointError as error:
        return StoredMap(file_name, image.size_hw, {}, f"FloatingPointError: {error}")
    by_label = {
        label: MergedCam(maps[i : i + 1], cell_size)
        for i, label in enumerate(image.entry.labels.tolist())
    }
    return StoredMap(file_name, image.size_hw, by_label, None)
