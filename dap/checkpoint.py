"""Load weights from checkpoint files of any kind with torch's safe loader."""

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

# Keys of the notes in a file of `extract_detector`: category-dependent layers that were left out,
# layers that the user excluded, and the normalisation of images.
LEFT_OUT = "category_dependent"
NOT_WANTED = "left_out"
NORMALIZATION = "normalization"
# In safetensors the notes are JSON under one key, because several keys are written in random order.
NOTES = "dap_notes"


def load_weights(checkpoint: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load the weights of a checkpoint onto the CPU.

    Supported files are checkpoints of MMEngine and packages based on it, state dicts (at top level
    or under ``'state_dict'``, ``'model'``, ``'net'``, ``'params_ema'`` and similar keys at any
    depth), and safetensors, also in several parts with an index. Prefixes of wrappers
    (``module.``, ``_orig_mod.``, ``_fsdp_wrapped_module.``, …) are removed. If the file has both
    averaged and plain weights, those under ``'state_dict'`` are chosen, where MMEngine's EMAHook
    saves the average; the choice is logged. The safe loader does not execute code of the file.

    Args:
        checkpoint: File, or a URL that MMEngine's ``CheckpointLoader`` supports (``https://``,
            ``torchvision://``, ``open-mmlab://`` …).

    Returns:
        Tensors by name, and the checkpoint's ``meta``, empty if it has none.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If a URL cannot be fetched.
        ValueError: If it is no checkpoint, is truncated, contains classes that the safe loader
            does not allow, has no named tensors, has several sets of weights under unknown keys,
            or has quantised weights.
    """
    content = read_checkpoint(checkpoint)
    weights = find_weights(content, os.fspath(checkpoint))
    return weights, _read_meta(content, weights)


def require_finite(weights: Mapping[str, Tensor], checkpoint: str | os.PathLike[str]) -> None:
    """Check that weights have no NaN or infinite values.

    Args:
        weights: Tensors by name.
        checkpoint: Name of their file, for the error.

    Raises:
        ValueError: If a value is not finite; it names the first such tensor and gives their number.
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
        value = value.float()  # torch has no isfinite for 8-bit floats
    # A sum takes a twentieth of the time. It is finite only if all values are.
    return bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())


def _read_meta(content: object, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint's ``meta``, with the notes of `extract_detector` in the state dict."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    if isinstance(meta.get(LEFT_OUT), str):  # safetensors of older versions
        meta[LEFT_OUT] = json.loads(meta[LEFT_OUT])
    if isinstance(meta.get(NOTES), str):
        meta |= json.loads(meta.pop(NOTES))
    notes = getattr(weights, "_metadata", {}).get("", {})
    keys = (LEFT_OUT, NOT_WANTED, NORMALIZATION)
    return meta | {key: notes[key] for key in keys if key in notes}
