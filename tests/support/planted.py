"""A classifier of colours whose maps are known: the last features are mean colours of cells."""

from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import DATASETS, MODELS
from torch import Tensor, nn

STRIDE = 16
# Rows: blue, green, red; columns: channels B, G, R. Grey gives 0, the class's own colour 180.
WEIGHT = torch.tensor([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]])


@MODELS.register_module()
class MeanColours(nn.Module):
    """Mean colour of each cell of 16 x 16 pixels, as a mmpretrain backbone."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (F.avg_pool2d(images, STRIDE),)


@MODELS.register_module()
class NanOnBlack(MeanColours):
    """Mean colours over their sum: not a number where an image is black."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        (means,) = super().forward(images)
        return (means / means.sum(dim=(1, 2, 3), keepdim=True),)


@MODELS.register_module()
class FailsOnBlack(MeanColours):
    """Mean colours, and an error where an image is black."""

    error: type[Exception] = RuntimeError

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if not images.any():
            raise self.error("the device says no")
        return super().forward(images)


@MODELS.register_module()
class Swapped(nn.Module):
    """A neck that reverses the channels."""

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (features[-1].flip(1),)


@MODELS.register_module()
class DoublingHead(nn.Module):
    """A head with one linear layer that is not all it does."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        return 2 * self.fc(features[-1].sqrt())


@DATASETS.register_module()
class Unlabelled(DATASETS.get("mmpretrain.CustomDataset")):
    """A dataset without labels."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        info = super().get_data_info(index)
        info.pop("gt_label")
        return info


def model_config(num_classes: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "type": "ImageClassifier",
        "backbone": {"type": "MeanColours"},
        "neck": {"type": "GlobalAveragePooling"},
        "head": {"type": "LinearClsHead", "num_classes": num_classes, "in_channels": 3},
        "data_preprocessor": {"mean": [0.0] * 3, "std": [1.0] * 3},
        **changes,
    }


def config_text(**changes: Any) -> str:
    """The file of a config with this classifier, to which data and settings can be added."""
    return (
        "custom_imports = dict(imports=['tests.support.planted'], allow_failed_imports=False)\n"
        f"model = {model_config(**changes)!r}\n"
    )


def planted_state() -> dict[str, Tensor]:
    return {"head.fc.weight": WEIGHT.clone(), "head.fc.bias": torch.zeros(3)}


def planted_classifier() -> nn.Module:
    model = MODELS.build(model_config())
    model.load_state_dict(planted_state())
    return model
