"""Weights out of any checkpoint file, always with torch's safe loader."""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dap.checkpoint_contents import find_weights, renamed, select
from dap.checkpoint_files import read_checkpoint

__all__ = [
    "LEFT_OUT",
    "NORMALIZATION",
    "NOTES",
    "NOT_WANTED",
    "load_weights",
    "renamed",
    "require_finite",
    "select",
]

# Under these keys a file from `extract_detector` names the layers that it was written without
# (those of the categories, and those that its user did not want) and how images were normalised.
LEFT_OUT = "category_dependent"
NOT_WANTED = "left_out"
NORMALIZATION = "normalization"
# Safetensors keep all of it as JSON under one key: they write several in random order.
NOTES = "dap_notes"


def load_weights(checkpoint: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a checkpoint onto the CPU.

    Reads checkpoints of MMEngine and all that builds on it, state dicts as they are or below
    ``'state_dict'``, ``'model'``, ``'net'``, ``'params_ema'`` and their like at any depth, and
    safetensors, also in parts with an index. The names of wrappers (``module.``, ``_orig_mod.``,
    ``_fsdp_wrapped_module.``, …) are taken off. Where averaged weights lie beside plain ones,
    ``'state_dict'`` wins: MMEngine's EMAHook puts the average there; the log says what was chosen.
    torch's safe loader reads the file, so that it cannot run code.

    Args:
        checkpoint: File, or whatever MMEngine's ``CheckpointLoader`` takes (``https://``,
            ``torchvision://``, ``open-mmlab://`` …).

    Returns:
        Tensors by name, and the checkpoint's ``meta``, empty if it has none.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If a URL cannot be fetched.
        ValueError: If it is no checkpoint, is truncated, needs classes that the safe loader does
            not know, holds no tensors with names, holds several sets of weights under unknown
            keys, or holds quantised ones.
    """
    content = read_checkpoint(checkpoint)
    weights = find_weights(content, os.fspath(checkpoint))
    return weights, _read_meta(content, weights)


def require_finite(weights: Mapping[str, Tensor], checkpoint: str | os.PathLike[str]) -> None:
    """Refuse weights with NaN or infinite values.

    Args:
        weights: Tensors by name; those of whole numbers always pass.
        checkpoint: Where they come from, for the error.

    Raises:
        ValueError: If a value is not finite; it names the first such tensor and counts them.
    """
    bad = [name for name, value in weights.items() if not _is_finite(value)]
    if bad:
        raise ValueError(
            f"{os.fspath(checkpoint)}: {bad[0]} holds values that are not finite (NaN or inf), one "
            f"of {len(bad)} such tensors among {len(weights)}. The training has diverged: pass an "
            "earlier checkpoint."
        )


def _is_finite(value: Tensor) -> bool:
    if value.is_floating_point() and value.element_size() == 1:
        value = value.float()  # torch has no isfinite for eight bits
    return bool(torch.isfinite(value).all())


def _read_meta(content: object, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Give a checkpoint's ``meta``, with what `extract_detector` noted in the state dict."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    if isinstance(meta.get(LEFT_OUT), str):  # safetensors of older versions
        meta[LEFT_OUT] = json.loads(meta[LEFT_OUT])
    if isinstance(meta.get(NOTES), str):
        meta |= json.loads(meta.pop(NOTES))
    noted = getattr(weights, "_metadata", {}).get("", {})
    keys = (LEFT_OUT, NOT_WANTED, NORMALIZATION)
    return meta | {key: noted[key] for key in keys if key in noted}
