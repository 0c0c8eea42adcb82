"""Write a detector's weights without the category-dependent layers."""

import hashlib
import io
import json
import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dap.checkpoint import LEFT_OUT, NORMALIZATION, NOT_WANTED, NOTES, load_weights, require_finite
from dap.files import write_bytes

from .model_configs import ModelConfig, dependent_by_config, parse_model_config, read_model_config
from .normalization import normalization_of_config
from .report import shorten
from .selection import Selection

_SUFFIXES = (".pth", ".safetensors")


def extract_detector(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model_cfg: str | os.PathLike[str] | Config | Mapping[str, Any] | None = None,
    parts: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
) -> Path:
    """Write a detector's weights without category-dependent layers and training state.

    The file is a state dict for ``load_from`` and for ``dap.PretrainedDetector``. It also records
    the layers that were left out, which ``dap.PretrainedDetector`` then does not report as missing,
    and the normalisation of the images. The same weights give the same bytes.

    Args:
        checkpoint: File or URL in any format of `load_weights`.
        out: Folder, or a name that ends with ``.pth`` or ``.safetensors``. The file is named
            ``<name>-<hash8>.pth`` with the first eight hex digits of its sha256, as in OpenMMLab's
            model zoo; in a folder, ``<name>`` is that of the checkpoint.
        model_cfg: Config of the detector, its ``model`` part or its path. Defaults to the config
            in the checkpoint.
        parts: Modules to write, like ``('backbone', 'neck', 'rpn_head')``; None for all.
        exclude: Modules to leave out, like ``'roi_head.bbox_head'``; also inside ``parts``.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the file is not a checkpoint or has values that are not finite, if there is
            no config, if the detector of the config cannot be built here or is another one, or if
            the checkpoint has no module that ``parts`` or ``exclude`` names.
    """
    weights, meta = load_weights(checkpoint)
    require_finite(weights, checkpoint)
    config = _config(meta, model_cfg)
    left_out = _category_dependent(weights, meta, config, os.fspath(checkpoint))
    selection = Selection.of(parts, exclude)
    # Top-level modules, and the modules inside a RoI head.
    paths = (n.split(".")[: 2 if n.startswith("roi_head.") else 1] for n in weights)
    modules = dict.fromkeys(".".join(path) for path in paths)
    selection.check(weights, modules, os.fspath(checkpoint))
    unwanted = {name for name in weights if selection.leaves_out(name)}
    kept = {n: v for n, v in weights.items() if n not in left_out and n not in unwanted}
    target = _target(Path(out), os.fspath(checkpoint))
    notes = _notes(left_out, unwanted, meta, config)
    content = _serialise(kept, notes, getattr(weights, "_metadata", {}), target.suffix)
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = target.with_name(f"{target.stem}-{digest}{target.suffix}")
    write_bytes(path, content)
    names = ", ".join(sorted(left_out - unwanted)) or "nothing"
    selected = f"; by parts and exclude: {shorten(sorted(unwanted))}" if unwanted else ""
    print_log(f"{path}: {len(kept)} tensors; left out: {names}{selected}", logger="current")
    return path


def _config(
    meta: Mapping[str, Any], user_cfg: str | os.PathLike[str] | Config | Mapping[str, Any] | None
) -> ModelConfig | None:
    """Return the user's config, else the checkpoint's; None for an extracted checkpoint."""
    if user_cfg is not None:
        return read_model_config(user_cfg)
    text = meta.get("cfg")
    return parse_model_config(text) if isinstance(text, str) and LEFT_OUT not in meta else None


def _category_dependent(
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    config: ModelConfig | None,
    checkpoint: str,
) -> frozenset[str]:
    """Find the layers to leave out; reject a config that does not describe the weights."""
    if config is None and LEFT_OUT in meta:
        return frozenset(meta[LEFT_OUT])
    if config is None:
        raise ValueError(
            f"{checkpoint} has no readable config, which is needed to find the "
            "category-dependent layers. Pass the config of its detector (--config)."
        )
    names = dependent_by_config(config, checkpoint)
    if absent := sorted(names - weights.keys()):
        raise ValueError(
            f"{checkpoint} is of another detector than the config: the config's has {absent[0]}, "
            f"the checkpoint begins with {next(iter(weights))}. Pass the config that it was "
            "trained with."
        )
    return names


def _notes(
    left_out: Collection[str],
    unwanted: Collection[str],
    meta: Mapping[str, Any],
    config: ModelConfig | None,
) -> dict[str, Any]:
    """Make the notes of the file: left-out layers and the normalisation of images."""
    notes: dict[str, Any] = {LEFT_OUT: sorted(left_out)}
    if unwanted or NOT_WANTED in meta:
        notes[NOT_WANTED] = sorted({*unwanted, *meta.get(NOT_WANTED, ())})
    normalization = normalization_of_config(config.model) if config else None
    if normalization is not None:
        notes[NORMALIZATION] = normalization.note()
    elif NORMALIZATION in meta:
        notes[NORMALIZATION] = meta[NORMALIZATION]
    return notes


def _target(out: Path, checkpoint: str) -> Path:
    """Return the path of the file to write, without the hash."""
    if out.suffix in _SUFFIXES:
        return out
    if out.suffix in (".pt", ".bin", ".ckpt", ".pkl"):
        raise ValueError(
            f"OUT is {out}, expected a folder or a name that ends with {' or '.join(_SUFFIXES)}."
        )
    return out / f"{Path(checkpoint).stem}.pth"


def _serialise(
    weights: Mapping[str, Tensor],
    notes: Mapping[str, Any],
    versions: Mapping[str, Mapping[str, Any]],
    suffix: str,
) -> bytes:
    """Serialise weights; the same weights give the same bytes."""
    # A view would be saved with the whole tensor that it is a view of; a clone is not.
    state = OrderedDict((n, v.detach().contiguous().clone()) for n, v in weights.items())
    if suffix == ".safetensors":
        return to_safetensors(state, {NOTES: json.dumps(notes)})
    metadata: dict[str, dict[str, Any]] = {
        module: {"version": entry["version"]}
        for module, entry in versions.items()
        if "version" in entry
    }
    metadata.setdefault("", {}).update(notes)
    state._metadata = metadata  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
