"""Choose the map method of a classifier by running it on a probe image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .attention import count_blocks
from .gradient import find_target
from .methods import (
    METHODS,
    AttentionMaps,
    ExactMaps,
    GradientMaps,
    MapMethod,
)
from .network import LogitNetwork, keeps_output, observe, shared_copy
from .readout import Readout, find_readout, nearly_equal

PROBE_SIDE = 224
USUAL_SIDES = (256, 384)  # sides to try if the network states no input size
Normalize = Callable[[Tensor], Tensor]
_FAILURES = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class Choice(NamedTuple):
    """The map method of a classifier, and the image sizes that it accepts.

    Attributes:
        method: The map method.
        grid_hw: Rows and columns of the map of the probe image.
        side: Side of the probe image in pixels.
        any_size: Whether the network accepts images of other sizes.
        reason: Why the maps are not exact; empty if they are.
    """

    method: MapMethod
    grid_hw: tuple[int, int]
    side: int
    any_size: bool
    reason: str


def probe_image(side: int = PROBE_SIDE, height: int | None = None) -> Tensor:
    """Make an image of random pixels in [0, 255], float32, shape (1, 3, height or side, side)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, height or side, side, generator=generator) * 255


def choose_method(model: nn.Module, normalize: Normalize, requested: str | None = None) -> Choice:
    """Choose the map method of a classifier: exact maps if possible, otherwise by gradient.

    Whether logits are the means of maps is tested numerically on a probe image; names and classes
    of modules do not matter.

    Args:
        model: Classifier in evaluation mode: mmpretrain's ``ImageClassifier``, or one that holds
            the network of another library as ``model``.
        normalize: The normalisation of the classifier, for pixels in [0, 255].
        requested: ``'exact'``, ``'ag-cam'``, ``'grad-cam'``, or ``'gradient'`` for AG-CAM if
            possible and otherwise Grad-CAM; None to choose among all.

    Raises:
        ValueError: If the classifier does not accept colour images, or if the requested method is
            not possible.
    """
    if requested not in (None, *METHODS):
        raise ValueError(f"map_method: expected one of {METHODS} or None, found {requested!r}")
    name, reason = describe(model), "maps by gradient are asked for (map_method)"
    network = LogitNetwork(model)
    side, probe = _probe(network, normalize, model, name)
    if requested in (None, "exact"):
        exact, reason = _exact_maps(network, probe)
        if exact is not None:
            return _probed_choice(exact, normalize, side, "")
        if requested == "exact":
            raise ValueError(
                f"classifier {name}: it has no exact class activation map, because {reason}. Leave "
                "map_method out, or set it to 'gradient'"
            )
    target = find_target(network, probe)
    if target is None:
        raise ValueError(
            f"classifier {name}: no map can be computed. It has no exact one, because {reason}; "
            "and its logits depend on no feature map of a norm, a stage or a block. Use a "
            "classifier with a spatial feature map"
        )
    blocks = 0 if requested == "grad-cam" else count_blocks(network, target, probe)
    if requested == "ag-cam" and not blocks:
        raise ValueError(
            f"classifier {name}: it has no map by attention (map_method='ag-cam'), because no "
            "attention from a class token to the patches was seen. Leave map_method out"
        )
    with torch.no_grad():
        classes = network(probe).shape[1]
    arguments = shared_copy(network), target, classes
    method = AttentionMaps(*arguments, blocks) if blocks else GradientMaps(*arguments)
    return _probed_choice(method, normalize, side, reason)


def describe(model: nn.Module) -> str:
    """Describe a classifier by the class names of its parts."""
    inner = getattr(model, "model", None)
    if inner is not None and not hasattr(model, "backbone"):
        return f"{type(model).__name__} of {type(inner).__name__}"
    return f"{type(model).__name__} with {type(getattr(model, 'head', None)).__name__}"


def _probe(
    network: nn.Module, normalize: Normalize, model: nn.Module, name: str
) -> tuple[int, Tensor]:
    """Find a size that the network accepts; return the side and a normalised probe image."""
    failures = []
    for side in dict.fromkeys((PROBE_SIDE, *_native_sides(model), *USUAL_SIDES)):
        try:
            images = normalize(probe_image(side))
            with torch.no_grad():
                logits = network(images)
            if torch.is_tensor(logits) and logits.ndim == 2:
                return side, images
            failures.append(f"TypeError: it returned {type(logits).__name__}, not logits (N, K)")
        except _FAILURES as error:
            failures.append(f"{type(error).__name__}: {error}")
    raise ValueError(
        f"classifier {name}: it failed on a colour image of {PROBE_SIDE} x {PROBE_SIDE} px "
        f"({failures[0]}). Expected a classifier of colour images that returns one logit per class"
    )


def _native_sides(model: Any) -> Iterator[int]:
    """Yield the input sides that a network states in its attributes or config."""
    inner = getattr(model, "model", None)
    config = getattr(inner, "pretrained_cfg", None) or {}
    for size in (
        getattr(getattr(model, "backbone", None), "img_size", None),
        config.get("input_size"),
        getattr(getattr(inner, "config", None), "image_size", None),
    ):
        side = size[-1] if isinstance(size, tuple | list) and size else size
        if isinstance(side, int) and side > 0:
            yield side


def _exact_maps(network: nn.Module, probe: Tensor) -> tuple[ExactMaps | None, str]:
    """Find the pooled feature map among the outputs of all modules; without one, say why."""
    size_hw = (probe.shape[2], probe.shape[3])
    with torch.no_grad():
        logits, calls = observe(network, probe)
        readout = find_readout(calls, logits, size_hw)
        if not isinstance(readout, Readout):
            return None, readout
        stop = keeps_output(network, readout.module, probe)
        method = ExactMaps(shared_copy(network), readout, stop)
        expected = method.features(probe).mean(dim=(2, 3)) @ readout.weight.T + readout.bias
    if not nearly_equal(logits - readout.bias, expected - readout.bias):
        return None, "its logits are not the linear layer of the averaged features"
    return method, ""


def _probed_choice(method: MapMethod, normalize: Normalize, side: int, reason: str) -> Choice:
    """Determine the grid of a method, and whether it accepts larger images."""
    with torch.no_grad():
        rows, columns = method.features(normalize(probe_image(side))).shape[-2:]
        stride = max(side // rows, 1)
        larger = [-(-side * part // 7 // stride) * stride for part in (8, 10)]
        try:
            features = method.features(normalize(probe_image(larger[1], larger[0])))
            any_size = features.shape[-2] > rows and features.shape[-1] > columns
        except _FAILURES:
            any_size = False
    return Choice(method, (rows, columns), side, any_size, reason)
