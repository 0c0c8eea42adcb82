"""The maps of a finished run, computed again for the few images that are looked at."""

from __future__ import annotations

import os

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from dap.cam import MergedCam

from .classifier import CamClassifier, evaluating
from .from_config import build_classifier
from .image_files import read_image
from .store import PseudoBoxStore


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
        self.settings = store.settings()
        self._classifier = CamClassifier(model)
        own = self._classifier.weights_sha256()
        theirs = store.manifest["classifier"].get("weights_sha256")
        if own != theirs:
            raise ValueError(
                f"{store.folder} was made with other weights (SHA-256 {str(theirs)[:16]}…) than "
                f"those given ({own[:16]}…), or with another normalisation. Give the config and "
                f"the checkpoint of that run: {store.manifest.get('checkpoint')}"
            )
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
        model, _ = build_classifier(config, checkpoint)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(store, model, image_root)

    def merged(self, image: Tensor, label: int) -> MergedCam:
        """The map that boxes are taken from.

        Args:
            image: BGR, uint8, shape (3, H, W).
            label: Class whose map it is.
        """
        with evaluating(self._classifier.model):
            return self._classifier.maps(image, torch.tensor([label]), self.settings)

    def score_map(self, file_name: str, label: int) -> np.ndarray:
        """The map at the size of its image.

        Args:
            file_name: Name of the image in the store.
            label: Class whose map it is.

        Returns:
            In [0, 1], float32, shape (H, W).

        Raises:
            OSError: If the image cannot be read.
            ValueError: If it is no image, or its map is not finite.
        """
        image = read_image(os.path.join(self.root, file_name))
        return self.merged(image, label).over_image((image.shape[1], image.shape[2]))
