"""Replace the backbone of a detector's config, or its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dap.checkpoint import load_weights

from .trees import plain

_TIMM = "timm:"
_SCRATCH = "nothing: it is trained from scratch"
_SIDE = 256  # side in pixels of the image that strides are measured on


class Backbone(NamedTuple):
    """Changes of a config for its backbone.

    Attributes:
        changes: Changes of ``model``.
        twin_changes: Changes of ``model`` for the twin, whose whole detector is initialised from
            another one.
        origin: Origin of the weights, in words.
    """

    changes: dict[str, Any]
    twin_changes: dict[str, Any]
    origin: str


def detector_backbone(model: Mapping[str, Any], weights: str | None) -> Backbone:
    """Keep the detector's backbone, with its recipe's weights or others.

    Args:
        model: The ``model`` part of the config to inherit from.
        weights: Checkpoint of a classifier or a backbone; None for the weights of the recipe.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the file is not a checkpoint, or the model has no backbone.
    """
    backbone = model.get("backbone")
    if not isinstance(backbone, Mapping):
        raise ValueError(f"{model.get('type')} has no backbone; expected one to initialise")
    twin = {"backbone": {"init_cfg": None}}
    if weights is None:
        recipe = backbone.get("init_cfg") or {}
        checkpoint = recipe.get("checkpoint") if isinstance(recipe, Mapping) else None
        return Backbone({}, twin if recipe else {}, checkpoint or _SCRATCH)
    init_cfg = {"_delete_": True, "type": "Pretrained", "checkpoint": weights} | _prefix(weights)
    if not isinstance(backbone.get("init_cfg"), Mapping):
        del init_cfg["_delete_"]
    return Backbone({"backbone": {"init_cfg": init_cfg}}, twin, weights)


def _prefix(weights: str) -> dict[str, str]:
    """``prefix`` of the backbone's weights if they are part of a classifier's checkpoint."""
    names = load_weights(weights)[0]
    return {"prefix": "backbone."} if any(n.startswith("backbone.") for n in names) else {}


def timm_backbone(model: Mapping[str, Any], name: str, weights: str | None) -> Backbone:
    """Replace the detector's backbone by one of timm.

    Args:
        model: The ``model`` part of the config to inherit from.
        name: Name of a model of timm, such as ``convnext_tiny.fb_in1k``.
        weights: File with a classifier of this architecture that timm can load; None to train from
            scratch.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If timm is not installed.
        ValueError: If timm does not know the model, its features are not a pyramid, or the
            detector's neck has no list of input channels.
    """
    if weights is not None and not os.path.isfile(weights):
        raise FileNotFoundError(f"{weights} is not there; expected weights of timm's {name}")
    neck, position = _neck(model)
    count = len(neck["in_channels"])
    levels = _timm_levels(name)
    if len(levels) < count:
        raise ValueError(
            f"timm's {name} has features at strides {[level.stride for level in levels]}; the neck "
            f"takes {count} levels, each at half the resolution of the one before. Choose a "
            "convolutional backbone"
        )
    chosen = levels[-count:]
    backbone: dict[str, Any] = {
        "_delete_": True,
        "type": "dap.FrozenTIMMBackbone",
        "model_name": name,
        "features_only": True,
        "out_indices": tuple(level.number for level in chosen),
    }
    if levels[0].has_batch_norm:
        backbone["fixed_batch_norm"] = True
    if weights is not None:
        backbone |= {"pretrained": True, "pretrained_cfg_overlay": {"file": weights}}
    channels = [level.channels for level in chosen]
    changes = {
        "data_preprocessor": _normalization(name),
        "backbone": backbone,
        "neck": _changed_neck(model["neck"], position, channels),
    }
    twin = {"backbone": {"pretrained": False}} if weights is not None else {}
    return Backbone(changes, twin, weights or _SCRATCH)


def _neck(model: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """Part of the neck that takes the backbone's features, and its index if the neck is a list."""
    neck = model.get("neck")
    first, position = (neck[0], 0) if isinstance(neck, list | tuple) else (neck, None)
    if not isinstance(first, Mapping) or not isinstance(first.get("in_channels"), Sequence):
        raise ValueError(
            f"{model.get('type')}: the neck has no list in_channels, so its backbone cannot be "
            "replaced. Choose a detector with an FPN, a PAFPN or a ChannelMapper"
        )
    return first, position


def _changed_neck(neck: Any, position: int | None, channels: list[int]) -> Any:
    if position is None:
        return {"in_channels": channels}
    first, *rest = plain(neck)
    return [{**first, "in_channels": channels}, *rest]


class _Level(NamedTuple):
    number: int
    channels: int
    stride: int
    has_batch_norm: bool


def _timm_levels(name: str) -> list[_Level]:
    """List the features of a timm model, one per stride, measured on one image.

    Raises:
        ValueError: If timm does not know the model, or its features have no shape (N, C, H, W).
    """
    try:
        import timm
    except ImportError as error:
        raise ImportError("timm: backbones need the package timm; pip install timm") from error
    try:
        model = timm.create_model(name, features_only=True, pretrained=False).eval()
    except (RuntimeError, ValueError, AttributeError) as error:
        near = ", ".join(timm.list_models(f"{name.split('.')[0][:6]}*")[:5]) or "none"
        raise ValueError(f"timm: {name}: {error}. Models with such names: {near}") from error
    feature_info: Any = model.feature_info
    try:
        with torch.no_grad():
            features = model(torch.zeros(1, 3, _SIDE, _SIDE))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"timm's {name} takes images of one size only ({error}), but detectors use images "
            "of many sizes. Choose a convolutional backbone"
        ) from error
    channels: list[int] = feature_info.channels()
    if [feature.shape[1] for feature in features] != channels or features[0].dim() != 4:
        raise ValueError(
            f"timm's {name} gives features of shapes {[tuple(f.shape) for f in features]}; "
            "expected (N, C, H, W), as necks do. Choose a convolutional backbone"
        )
    batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    by_stride = {
        _SIDE // feature.shape[-1]: _Level(i, channels[i], _SIDE // feature.shape[-1], batch_norm)
        for i, feature in enumerate(features)
    }
    return [by_stride[stride] for stride in sorted(by_stride)]


def _normalization(name: str) -> dict[str, Any]:
    """Normalisation of images by timm for a model: RGB, values from 0 to 255."""
    import timm

    config = timm.get_pretrained_cfg(name)
    mean, std = (config.mean, config.std) if config else ((0.5,) * 3, (0.5,) * 3)
    return {
        "mean": [round(255 * value, 3) for value in mean],
        "std": [round(255 * value, 3) for value in std],
        "bgr_to_rgb": True,
    }


def backbone_of(model: Mapping[str, Any], name: str | None, weights: str | None) -> Backbone:
    """Choose the detector's backbone (``name`` is None) or one of timm (``timm:…``).

    Raises:
        ValueError: If the name has another prefix; see also :func:`detector_backbone` and
            :func:`timm_backbone`.
    """
    if name is None:
        return detector_backbone(model, weights)
    if not name.startswith(_TIMM):
        raise ValueError(
            f"backbone: found {name!r}, expected timm:NAME. For a backbone of mmdet or "
            "mmpretrain, write a config that inherits the detector, and give that config"
        )
    return timm_backbone(model, name.removeprefix(_TIMM), weights)
