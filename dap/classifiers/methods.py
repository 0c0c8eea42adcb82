"""The map methods of a classifier: exact, by its linear layer, or by gradient."""

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
"""Values of the setting; ``'gradient'`` is AG-CAM where it is possible, otherwise Grad-CAM."""


class _ExactMaps:
    """Base of the methods whose maps are those of a linear layer.

    Attributes:
        weight: Weight of the layer, shape (K, C).
        bias: Bias of the layer, shape (K,).
    """

    name = "exact"
    weight: Tensor
    bias: Tensor

    def features(self, images: Tensor) -> Tensor:
        """Compute the feature map that is pooled, of normalised images (N, C, h, w)."""
        raise NotImplementedError

    def view_maps(self, context: Context) -> ViewMaps:
        """Return the function from views to maps; it runs the network in a context (autocast)."""

        def features(images: Tensor) -> Tensor:
            images = images.contiguous(memory_format=torch.channels_last)
            with context():
                return self.features(images)

        return partial(linear_maps, features, self.weight)

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Compute logits, summed over the views, from the pooled features of :meth:`view_maps`."""
        return pooled @ self.weight.float().T + views * self.bias.float()


class PooledFeatures(_ExactMaps):
    """Exact maps of an mmpretrain classifier whose backbone outputs the map that is pooled.

    Args:
        model: ``ImageClassifier`` with a head of one linear layer.
        linear: That layer.
    """

    def __init__(self, model: nn.Module, linear: nn.Linear) -> None:
        self._model: Any = model
        self._backbone: Any = getattr(model, "backbone", None)
        self.weight = linear.weight.detach()
        self.bias = torch.zeros_like(self.weight[:, 0])
        if linear.bias is not None:
            self.bias = linear.bias.detach()

    def features(self, images: Tensor) -> Tensor:
        """Compute the last feature map of normalised images (N, C, h, w)."""
        output = self._backbone(images)
        if isinstance(self._model.neck, nn.Sequential):
            for layer in list(self._model.neck)[:-1]:  # such as the fusion of HRNet's stages
                output = layer(output)
        return output[-1] if isinstance(output, tuple | list) else output

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """Replace the backbone by the faster copy that ``fold`` returns."""
        self._backbone = fold(self._model.backbone)

    @property
    def feature_map(self) -> str:
        """Name of the part that computes the feature map."""
        return "backbone" if not isinstance(self._model.neck, nn.Sequential) else "neck"

    @property
    def description(self) -> str:
        """What the maps depend on besides the weights; empty for this method."""
        return ""


class ObservedFeatures(_ExactMaps):
    """Exact maps of a network whose pooled feature map was found, see :class:`Readout`.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        readout: Of the network.
    """

    def __init__(self, network: nn.Module, readout: Readout) -> None:
        self.readout, self._tap = readout, Tap(network, readout.module)
        self.weight, self.bias = readout.weight, readout.bias

    def features(self, images: Tensor) -> Tensor:
        """Compute the map that is pooled, divided by the σ of each image (N, C, h, w)."""
        output = self._tap.output(images)
        size_hw = (images.shape[2], images.shape[3])
        return self.readout.scaled(self.readout.layout.as_nchw(output, size_hw))

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """Replace the network by the faster copy that ``fold`` returns."""
        self._tap = Tap(fold(self._tap.release()), self.readout.module)

    @property
    def feature_map(self) -> str:
        """Name of the module that computes the feature map, and the norm after the pooling."""
        norm = ", then pooling and LayerNorm" if self.readout.eps is not None else ""
        return self.readout.module.removeprefix("classifier.") + norm

    @property
    def description(self) -> str:
        """What the maps depend on besides the weights."""
        return f"exact, {self.readout.module} {tuple(self.readout.layout)} {self.readout.eps}"


class GradientMaps:
    """Maps by Grad-CAM, see :func:`gradient_maps`.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        target: The feature map to differentiate by.
        num_classes: Number of logits.
    """

    name = "gradient"
    _compute = staticmethod(gradient_maps)

    def __init__(self, network: nn.Module, target: Target, num_classes: int) -> None:
        self.target, self._tap = target, Tap(network, target.module)
        like = next(network.parameters())
        self.bias = torch.zeros(num_classes, dtype=like.dtype, device=like.device)
        self.weight = self.bias[:, None][:, :0]

    def features(self, images: Tensor) -> Tensor:
        """Compute the target's feature map of normalised images (N, C, h, w)."""
        output = self._tap.output(images)
        return self.target.layout.as_nchw(output, (images.shape[2], images.shape[3]))

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """Replace the network by the faster copy that ``fold`` returns."""
        self._tap = Tap(fold(self._tap.release()), self.target.module)

    def view_maps(self, context: Context) -> ViewMaps:
        """Return the function from views to maps; it runs the network in a context (autocast)."""

        def maps(batch: Tensor, labels: Sequence[Tensor], flips: int) -> MappedViews:
            with context():
                return self._compute(self._tap, self.target, batch, labels, flips)

        return maps

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Return logits, summed over the views, which :meth:`view_maps` computes as ``pooled``."""
        return pooled

    @property
    def feature_map(self) -> str:
        """Name of the module that computes the feature map."""
        return self.target.module.removeprefix("classifier.")

    @property
    def description(self) -> str:
        """What the maps depend on besides the weights."""
        return f"Grad-CAM at {self.feature_map}"


class AttentionMaps(GradientMaps):
    """Maps by AG-CAM, see :func:`attention_maps`.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        target: The first norm of the last block.
        num_classes: Number of logits.
        blocks: Number of blocks whose attention is used.
    """

    _compute = staticmethod(attention_maps)

    def __init__(self, network: nn.Module, target: Target, num_classes: int, blocks: int) -> None:
        super().__init__(network, target, num_classes)
        self.blocks = blocks

    @property
    def description(self) -> str:
        """What the maps depend on besides the weights."""
        return f"AG-CAM over the attention of {self.blocks} blocks to {self.feature_map}"


MapMethod = PooledFeatures | ObservedFeatures | GradientMaps
