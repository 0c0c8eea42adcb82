"""Write a detector's weights without the category-dependent ones."""

import hashlib
import io
import json
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dap.checkpoint import (
    LEFT_OUT,
    NORMALIZATION,
    NOT_WANTED,
    NOTES,
    load_weights,
    require_finite,
)
from dap.files import write_bytes
from dap.transfer.model_configs import (
    ModelConfig,
    dependent_by_config,
    parse_model_config,
    read_model_config,
)
from dap.transfer.normalization import normalization_of_config
from dap.transfer.report import shorten
from dap.transfer.selection import Selection

_SUFFIXES = (".pth", ".safetensors")


def extract_detector(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model_cfg: str | os.PathLike[str] | Config | Mapping[str, Any] | None = None,
    parts: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
) -> Path:
    """Write a detector's weights without category-dependent layers and training state.

    The file is a state dict, for ``load_from`` as well as for ``dap.PretrainedDetector``. It notes
    which layers it was written without, so that the latter does not miss them, and how images were
    normalised. The same weights give the same bytes.

    Args:
        checkpoint: File or URL, anything that `load_weights` reads.
        out: Folder, or a name that ends with ``.pth`` or ``.safetensors``. The file is called
            ``<name>-<hash8>.pth`` with the first eight hex digits of its sha256, like those of
            OpenMMLab's model zoo; in a folder it has the checkpoint's name.
        model_cfg: Config of the detector, its ``model`` part or its path. Defaults to the one in
            the checkpoint.
        parts: Modules to write, like ``('backbone', 'neck', 'rpn_head')``; None for all.
        exclude: Modules to leave out, like ``'roi_head.bbox_head'``; also inside of ``parts``.

    Returns:
        The file written.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is no checkpoint or has values that are not finite, if there is no
            config, if the detector of the config cannot be built here or is another one, or if the
            checkpoint has no module that ``parts`` or ``exclude`` names.
    """
    weights, meta = load_weights(checkpoint)
    require_finite(weights, checkpoint)
    config = _config(meta, model_cfg)
    left_out = _category_dependent(weights, meta, config, os.fspath(checkpoint))
    selection = Selection.of(parts, exclude)
    selection.check(weights, _modules(weights), os.fspath(checkpoint))
    unwanted = {name for name in weights if selection.leaves_out(name)}
    kept = {n: v for n, v in weights.items() if n not in left_out and n not in unwanted}
    target = _target(Path(out), os.fspath(checkpoint))
    notes = _notes(left_out, unwanted, meta, config)
    content = _serialise(kept, notes, getattr(weights, "_metadata", {}), target.suffix)
    digest = hashlib.sha256(content).hexdigest()[:8]
    path = target.with_name(f"{target.stem}-{digest}{target.suffix}")
    write_bytes(path, content)
    names = ", ".join(sorted(left_out - unwanted)) or "nothing"
    purpose = f"; by parts and exclude: {shorten(sorted(unwanted))}" if unwanted else ""
    print_log(f"{path}: {len(kept)} tensors; left out: {names}{purpose}", logger="current")
    return path


def _config(
    meta: Mapping[str, Any], given: str | os.PathLike[str] | Config | Mapping[str, Any] | None
) -> ModelConfig | None:
    """Give the user's config, or else the checkpoint's; None for what was extracted before."""
    if given is not None:
        return read_model_config(given)
    text = meta.get("cfg")
    return parse_model_config(text) if isinstance(text, str) and LEFT_OUT not in meta else None


def _category_dependent(
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    config: ModelConfig | None,
    checkpoint: str,
) -> frozenset[str]:
    """Find the layers to leave out, and refuse a config that does not describe the weights."""
    if config is None and LEFT_OUT in meta:
        return frozenset(meta[LEFT_OUT])
    if config is None:
        raise ValueError(
            f"{checkpoint} has no readable config, which tells what depends on the categories. "
            "Pass the config of its detector (--config)."
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
    """Notes for the file, as plain values: left-out layers and the normalisation of images."""
    notes: dict[str, Any] = {LEFT_OUT: sorted(left_out)}
    if unwanted or NOT_WANTED in meta:
        notes[NOT_WANTED] = sorted({*unwanted, *meta.get(NOT_WANTED, ())})
    normalization = normalization_of_config(config.model) if config else None
    if normalization is not None:
        notes[NORMALIZATION] = normalization.note()
    elif NORMALIZATION in meta:
        notes[NORMALIZATION] = meta[NORMALIZATION]
    return notes


def _modules(names: Iterable[str]) -> list[str]:
    """Name the modules that tensors are of: the outer ones, of a RoI head those inside of it."""
    modules = (n.split(".")[: 2 if n.startswith("roi_head.") else 1] for n in names)
    return list(dict.fromkeys(".".join(path) for path in modules))


def _target(out: Path, checkpoint: str) -> Path:
    """Name the file to write, yet without the hash."""
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
    """Turn weights into the bytes of a file, always the same for the same weights."""
    # A clone owns its memory; a view would be saved with all that it is a view of.
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
