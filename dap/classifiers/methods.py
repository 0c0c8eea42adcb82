"""The ways to a class activation map: exactly by the linear layer, or by gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dap.cam import MappedViews, ViewMaps, linear_maps

from .attention import attention_maps
from .gradient import Target, gradient_maps
from .network import Tap
from .readout import Readout

Context = Callable[[], AbstractContextManager[Any]]
METHODS = ("exact", "gradient", "ag-cam", "grad-cam")
"""What may be asked for; ``'gradient'`` is AG-CAM where it can be had, else Grad-CAM."""


class PooledFeatures:
    """Exact maps of an mmpretrain classifier whose backbone gives the map that is pooled.

    Args:
        model: ``ImageClassifier`` with a head of one linear layer.
        linear: That layer.
    """

    name = "exact"

    def __init__(self, model: nn.Module, linear: nn.Linear) -> None:
        self._model: Any = model
        self._backbone: Any = getattr(model, "backbone", None)
        self.weight = linear.weight.detach()
        self.bias = torch.zeros_like(self.weight[:, 0])
        if linear.bias is not None:
            self.bias = linear.bias.detach()

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, of normalised images (N, C, h, w)."""
        found = self._backbone(images)
        if isinstance(self._model.neck, nn.Sequential):
            for layer in list(self._model.neck)[:-1]:  # what fuses stages, as HRNet's
                found = layer(found)
        return found[-1] if isinstance(found, tuple | list) else found

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """From now on compute features by a faster copy of the backbone."""
        self._backbone = fold(self._model.backbone)

    def view_maps(self, context: Context) -> ViewMaps:
        """The function from views to their maps, the network run in a context, as of autocast."""
        return partial(linear_maps, _channels_last(self.features, context), self.weight)

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Logits summed over the views, of what :meth:`view_maps` gives."""
        return pooled @ self.weight.float().T + views * self.bias.float()

    @property
    def feature_map(self) -> str:
        """Where the feature map comes from."""
        return "backbone" if not isinstance(self._model.neck, nn.Sequential) else "neck"

    @property
    def description(self) -> str:
        """What decides the maps and is no weight; nothing beyond the usual."""
        return ""


class ObservedFeatures:
    """Exact maps of any network whose pooled map was found, see :class:`Readout`.

    Args:
        network: From normalised images to logits; this object alone uses it.
        readout: Of the network.
    """

    name = "exact"

    def __init__(self, network: nn.Module, readout: Readout) -> None:
        self.readout, self._tap = readout, Tap(network, readout.module)
        self.weight, self.bias = readout.weight, readout.bias

    def features(self, images: Tensor) -> Tensor:
        """The map that is pooled, by the σ of each image, of normalised images (N, C, h, w)."""
        output = self._tap.output(images)
        size_hw = (images.shape[2], images.shape[3])
        return self.readout.scaled(self.readout.layout.as_nchw(output, size_hw))

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """From now on compute features by a faster copy of the network."""
        self._tap = Tap(fold(self._tap.release()), self.readout.module)

    def view_maps(self, context: Context) -> ViewMaps:
        """The function from views to their maps, the network run in a context, as of autocast."""
        return partial(linear_maps, _channels_last(self.features, context), self.weight)

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Logits summed over the views, of what :meth:`view_maps` gives."""
        return pooled @ self.weight.float().T + views * self.bias.float()

    @property
    def feature_map(self) -> str:
        """Where the feature map comes from, and the norm behind the pooling."""
        norm = ", then pooling and LayerNorm" if self.readout.eps is not None else ""
        return self.readout.module.removeprefix("classifier.") + norm

    @property
    def description(self) -> str:
        """Which map."""
        return f"exact, {self.readout.module} {tuple(self.readout.layout)} {self.readout.eps}"


class GradientMaps:
    """Maps by gradient, see :func:`gradient_maps`.

    Args:
        network: From normalised images to logits; this object alone uses it.
        target: What is differentiated by.
        num_classes: Number of logits.
    """

    name = "gradient"

    def __init__(self, network: nn.Module, target: Target, num_classes: int) -> None:
        self.target, self._tap = target, Tap(network, target.module)
        like = next(network.parameters())
        self.bias = torch.zeros(num_classes, dtype=like.dtype, device=like.device)
        self.weight = self.bias[:, None][:, :0]

    def features(self, images: Tensor) -> Tensor:
        """The map that is differentiated by, of normalised images (N, C, h, w)."""
        output = self._tap.output(images)
        return self.target.layout.as_nchw(output, (images.shape[2], images.shape[3]))

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """From now on use a faster copy of the network."""
        self._tap = Tap(fold(self._tap.release()), self.target.module)

    def view_maps(self, context: Context) -> ViewMaps:
        """The function from views to their maps, the network run in a context, as of autocast."""

        def maps(batch: Tensor, labels: Sequence[Tensor], flips: int) -> MappedViews:
            with context():
                return gradient_maps(self._tap, self.target.layout, batch, labels, flips)

        return maps

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Logits summed over the views: what :meth:`view_maps` gives is these."""
        return pooled

    @property
    def feature_map(self) -> str:
        """Where the feature map comes from."""
        return self.target.module.removeprefix("classifier.")

    @property
    def description(self) -> str:
        """Which map, and the formula."""
        return f"Grad-CAM at {self.feature_map}"


class AttentionMaps(GradientMaps):
    """Maps by the attention of a class token, see :func:`attention_maps`.

    Args:
        network: From normalised images to logits; this object alone uses it.
        target: The first norm of the last block.
        num_classes: Number of logits.
        blocks: Number of blocks whose attention counts.
    """

    def __init__(self, network: nn.Module, target: Target, num_classes: int, blocks: int) -> None:
        super().__init__(network, target, num_classes)
        self.blocks = blocks

    def view_maps(self, context: Context) -> ViewMaps:
        """The function from views to their maps, the network run in a context, as of autocast."""

        def maps(batch: Tensor, labels: Sequence[Tensor], flips: int) -> MappedViews:
            with context():
                return attention_maps(self._tap, self.target, batch, labels, flips)

        return maps

    @property
    def description(self) -> str:
        """Which map, and the formula."""
        return f"AG-CAM over the attention of {self.blocks} blocks to {self.feature_map}"


MapMethod = PooledFeatures | ObservedFeatures | GradientMaps


def _channels_last(
    features: Callable[[Tensor], Tensor], context: Context
) -> Callable[[Tensor], Tensor]:
    def computed(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with context():
            return features(images)

    return computed
