"""Classifiers of torchvision with the interface of mmpretrain."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import BaseClassifier
from torch import Tensor
from torchvision import models

from dap.registry import MODELS


@MODELS.register_module()
class TorchvisionClassifier(BaseClassifier):
    """A classifier of torchvision for Step 2, like mmpretrain's ``TimmClassifier`` for timm.

    It computes logits and cannot be trained; mmpretrain's backbones can.

    Args:
        model_name: Name for ``torchvision.models.get_model``.
        num_classes: Number of classes.
        data_preprocessor: Config of the normalisation.
        **kwargs: Further arguments of the network.
    """

    def __init__(
        self,
        model_name: str,
        num_classes: int = 1000,
        data_preprocessor: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        preprocessor = {"type": "mmpretrain.ClsDataPreprocessor", **(data_preprocessor or {})}
        super().__init__(data_preprocessor=preprocessor)
        self.model = models.get_model(model_name, weights=None, num_classes=num_classes, **kwargs)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Not available: networks of torchvision have no common interface to their features.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("TorchvisionClassifier computes only logits")

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Tensor:
        """Compute logits (N, K) of normalised images (N, 3, H, W).

        Raises:
            ValueError: If ``mode`` is not ``'tensor'``.
        """
        if mode != "tensor":
            raise ValueError(f"mode: expected 'tensor', found {mode!r}: it cannot be trained")
        logits: Tensor = self.model(inputs)
        return logits
