"""Classifiers of torchvision behind the interface of mmpretrain."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.classifiers import BaseClassifier
from torch import Tensor
from torchvision import models

from dap.registry import MODELS


@MODELS.register_module()
class TorchvisionClassifier(BaseClassifier):
    """A classifier of torchvision for Step 2, as mmpretrain's ``TimmClassifier`` is one of timm.

    It gives logits. To train it, use mmpretrain's backbones.

    Args:
        model_name: Name that ``torchvision.models.get_model`` knows.
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
        """Refuse: networks of torchvision have no common way to their features.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("TorchvisionClassifier gives logits alone")

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Tensor:
        """Compute logits (N, K) of normalised images (N, 3, H, W).

        Raises:
            ValueError: If another mode than ``'tensor'`` is asked for.
        """
        if mode != "tensor":
            raise ValueError(f"mode: expected 'tensor', found {mode!r}: this classifier is not "
                             "trained here")  # fmt: skip
        logits: Tensor = self.model(inputs)
        return logits
