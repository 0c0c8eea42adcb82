"""The map methods of a classifier: exact, by its linear layer, or by gradient."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dap.cam import MappedViews, ViewMaps, linear_maps

from .attention import attention_maps
from .gradient import Target, gradient_maps
from .layout import Layout
from .network import Tap
from .readout import Readout

Context = Callable[[], AbstractContextManager[Any]]
METHODS = ("exact", "gradient", "ag-cam", "grad-cam")
"""Values of the setting; ``'gradient'`` is AG-CAM where it is possible, otherwise Grad-CAM."""
_OUTPUT_OF_PART = re.compile(r"classifier\.(backbone|neck(\.\d+)?)")


class _FeatureMap:
    """Base of the methods: the feature map that the maps are computed from.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        module: Name of the module whose output is the feature map.
        layout: Layout of its output.
        stop: Whether layers after the module are left out, see :class:`Tap`.
    """

    def __init__(self, network: nn.Module, module: str, layout: Layout, stop: bool = False) -> None:
        self._tap, self._module, self._layout = Tap(network, module, stop), module, layout

    def features(self, images: Tensor) -> Tensor:
        """Compute the feature map of normalised images, shape (N, C, h, w)."""
        output = self._tap.output(images)
        return self._layout.as_nchw(output, (images.shape[2], images.shape[3]))

    def speed_up(self, fold: Callable[[nn.Module], nn.Module]) -> None:
        """Replace the network by the faster copy that ``fold`` returns."""
        self._tap = Tap(fold(self._tap.release()), self._module, self._tap.stop)

    @property
    def feature_map(self) -> str:
        """Name of the module that computes the feature map."""
        return self._module.removeprefix("classifier.")


class ExactMaps(_FeatureMap):
    """Maps of the linear layer that follows the pooling of a feature map, see :class:`Readout`.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        readout: Readout of the network.
        stop: Whether layers after the feature map are left out, see :class:`Tap`.

    Attributes:
        weight: Weight of the layer, shape (K, C).
        bias: Bias of the layer, shape (K,).
    """

    name = "exact"

    def __init__(self, network: nn.Module, readout: Readout, stop: bool) -> None:
        super().__init__(network, readout.module, readout.layout, stop)
        self.weight, self.bias, self._readout = readout.weight, readout.bias, readout

    def features(self, images: Tensor) -> Tensor:
        """Compute the map that is pooled, divided by the σ of each image, shape (N, C, h, w)."""
        return self._readout.scaled(super().features(images))

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

    @property
    def feature_map(self) -> str:
        """Name of the module that computes the feature map, and the norm after the pooling."""
        norm = ", then pooling and LayerNorm" if self._readout.eps is not None else ""
        return super().feature_map + norm

    @property
    def description(self) -> str:
        """What the maps depend on besides the weights.

        It is empty in the usual case: the feature map is the output of the backbone or neck of
        mmpretrain, and no norm follows the pooling.
        """
        readout = self._readout
        is_plain = readout.layout == Layout("NCHW") and readout.eps is None
        if is_plain and _OUTPUT_OF_PART.fullmatch(readout.module):
            return ""
        return f"exact, {readout.module} {tuple(readout.layout)} {readout.eps}"


class GradientMaps(_FeatureMap):
    """Maps by Grad-CAM, see :func:`gradient_maps`.

    Args:
        network: From normalised images to logits; not to be used by other objects.
        target: The feature map with respect to which gradients are computed.
        num_classes: Number of logits.
    """

    name = "gradient"
    _compute = staticmethod(gradient_maps)

    def __init__(self, network: nn.Module, target: Target, num_classes: int) -> None:
        super().__init__(network, target.module, target.layout)
        self._target = target
        like = next(network.parameters())
        self.bias = torch.zeros(num_classes, dtype=like.dtype, device=like.device)
        self.weight = self.bias[:, None][:, :0]

    def view_maps(self, context: Context) -> ViewMaps:
        """Return the function from views to maps; it runs the network in a context (autocast)."""

        def maps(batch: Tensor, labels: Sequence[Tensor], flips: int) -> MappedViews:
            with context():
                return self._compute(self._tap, self._target, batch, labels, flips)

        return maps

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Return logits, summed over the views, which :meth:`view_maps` computes as ``pooled``."""
        return pooled

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


MapMethod = ExactMaps | GradientMaps
