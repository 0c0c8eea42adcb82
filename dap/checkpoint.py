"""Weights out of any checkpoint file, always with torch's safe loader."""

import json
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError, safe_open
from torch import Tensor

# Under this key a file from `extract_detector` names the layers that it was written without.
LEFT_OUT = "category_dependent"

# Where weights lie inside a checkpoint, the first that holds tensors counts. MMEngine's EMAHook
# saves the averaged weights as 'state_dict' and the raw ones as 'ema_state_dict'.
_CONTAINERS = (
    "state_dict",
    "model",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
    "module",
)
# Entries that averaging keeps beside the weights: MMEngine, torch.optim.swa_utils, others.
_COUNTERS = frozenset(("steps", "n_averaged", "updates"))
_EXPECTED = (
    "a checkpoint of mmengine, mmdet or mmpretrain, a state dict saved by torch.save, or a "
    ".safetensors file"
)


def load_weights(checkpoint: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights of a checkpoint onto the CPU.

    Reads checkpoints of MMEngine and all that builds on it, state dicts as they are or inside
    ``'state_dict'``, ``'model'``, ``'state_dict_ema'`` and their like, and safetensors. The
    prefixes of wrappers (``module.``, ``ema_model.module.``, ``_orig_mod.``) are taken off. Where
    averaged weights lie beside plain ones, ``'state_dict'`` wins: MMEngine's EMAHook puts the
    average there. torch's safe loader reads the file, so that it cannot run code.

    Args:
        checkpoint: File, or whatever MMEngine's ``CheckpointLoader`` takes (``https://``,
            ``torchvision://``, ``open-mmlab://`` …).

    Returns:
        Tensors by name, and the checkpoint's ``meta``, empty if it has none.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If a URL cannot be fetched.
        ValueError: If it is no checkpoint, is truncated, needs classes that the safe loader does
            not know, or holds no tensors.
    """
    name = os.fspath(checkpoint)
    content = _read_url(name) if "://" in name else _read_file(Path(name).expanduser())
    weights = _find_weights(content)
    if not weights:
        keys = sorted(map(str, content))[:8] if isinstance(content, Mapping) else "none"
        raise ValueError(
            f"{name} holds no weights: found a {type(content).__name__} with keys {keys}, "
            f"expected {_EXPECTED}. Pass a file that has tensors."
        )
    weights = _without_wrappers(weights)
    return weights, _read_meta(content, weights)


@contextmanager
def _safe_loader() -> Iterator[None]:
    """Make MMEngine's loaders safe: for URLs torch.hub switches the safe loader off by default."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _read_url(url: str) -> Any:
    """Read what MMEngine knows to fetch."""
    try:
        with _safe_loader():
            return CheckpointLoader.load_checkpoint(url, map_location="cpu")
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(_unreadable(url, str(error))) from error
    except OSError as error:
        raise OSError(
            f"{url} cannot be fetched ({error}). Check the address and the network, or download it "
            "by other means and pass the file."
        ) from error


def _read_file(path: Path) -> Any:
    """Read a local file, or say what it is in place of a checkpoint."""
    if not path.exists():
        raise FileNotFoundError(
            f"no checkpoint at {path}. Check the path; it is relative to the working directory "
            f"({Path.cwd()})."
        )
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".pth", ".safetensors"))
        raise ValueError(
            f"{path} is a folder, expected a file. Name the checkpoint in it: "
            f"{', '.join(inside[-3:]) or 'it has none'}."
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    with path.open("rb") as file:
        start = file.read(16)
    # A zip archive since torch 1.6, a pickle before.
    if not start.startswith((b"PK", b"\x80")):
        raise ValueError(
            f"{path} is no checkpoint: found {_kind_of_file(start)}, expected {_EXPECTED}. Check "
            "the path, or download the file again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise ValueError(_unreadable(str(path), str(error))) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file as if it were a checkpoint of MMEngine."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta: dict[str, Any] = dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}). It is truncated or of another "
            "kind: download or save it again."
        ) from error
    if LEFT_OUT in meta:
        meta[LEFT_OUT] = json.loads(meta[LEFT_OUT])
    return {"state_dict": weights, "meta": meta}


def _kind_of_file(start: bytes) -> str:
    """Say in words what a file is from its first bytes."""
    kinds = {
        b"": "an empty file",
        b"\xff\xd8\xff": "a JPEG image",
        b"\x89PNG": "a PNG image",
        b"<": "a web page or XML",
        b"version https://": "a Git LFS pointer without its content",
        b"\x1f\x8b": "a gzip archive",
        b"\x89HDF": "an HDF5 file",
    }
    for magic, kind in kinds.items():
        if start == magic or (magic and start.startswith(magic)):
            return kind
    if start.isascii() and start.split(b"\n")[0].decode().isprintable():
        return f"text ({start.decode()!r}…)"
    return f"bytes {start[:4].hex(' ')}…"


def _unreadable(name: str, reason: str) -> str:
    """Explain why the safe loader refused a file."""
    unknown = re.search(r"(?:GLOBAL|got) ([\w.]+\.[\w.]+)", reason)
    if unknown:
        return (
            f"{name} holds an object of {unknown[1]}, which the safe loader does not rebuild; "
            f"expected {_EXPECTED}. Save the weights alone, torch.save(model.state_dict(), …), or, "
            "if you trust the file, allow the class with torch.serialization.add_safe_globals."
        )
    return (
        f"{name} cannot be read as a checkpoint ({reason.splitlines()[0] or 'end of file'}): it is "
        f"truncated or of another kind. Expected {_EXPECTED}. Save or download it again."
    )


def select(
    weights: dict[str, Tensor], keep: Callable[[str], bool], cut: str = ""
) -> dict[str, Tensor]:
    """Take some tensors of a state dict, and the versions of modules that torch keeps beside.

    Args:
        weights: Tensors by name; not changed.
        keep: Whether to take a name.
        cut: Prefix to take off the names.

    Returns:
        A new dict of the same tensors.
    """
    weights = _renamed(weights, str)
    _drop(weights, [name for name in weights if not keep(name)])
    return _renamed(weights, lambda name: name.removeprefix(cut))


def _find_weights(content: object) -> dict[str, Tensor]:
    """Take the tensors out of a checkpoint, from the first container that has any."""
    if not isinstance(content, Mapping):
        return {}
    for key in _CONTAINERS:
        if weights := _find_weights(content.get(key)):
            return weights
    weights = OrderedDict((k, v) for k, v in content.items() if isinstance(v, Tensor))
    if hasattr(content, "_metadata"):  # versions of modules, by which torch converts old names
        weights._metadata = content._metadata  # type: ignore[attr-defined]
    return weights


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the prefixes of wrappers off the names."""
    weights = _renamed(weights, lambda name: name.replace("_orig_mod.", ""))
    averages = {name for name in weights if name.startswith("ema_model.")}
    if len(averages) < len(weights.keys() - _COUNTERS):  # beside the weights that they average
        _drop(weights, averages)
    for prefix in ("module.", "ema_model.", "module."):
        if all(name.startswith(prefix) for name in weights.keys() - _COUNTERS):
            weights = select(weights, lambda name: name not in _COUNTERS, cut=prefix)
    return weights


def _drop(weights: dict[str, Tensor], names: Iterable[str]) -> None:
    """Take names out, if they are there."""
    for name in names:
        weights.pop(name, None)


def _renamed(weights: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Rename tensors, and with them the modules whose versions torch keeps beside."""
    renamed = OrderedDict((rename(name), value) for name, value in weights.items())
    if hasattr(weights, "_metadata"):
        versions = weights._metadata.items()
        renamed._metadata = {  # type: ignore[attr-defined]
            rename(f"{module}.").strip("."): version for module, version in versions
        }
    return renamed


def _read_meta(content: object, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Give a checkpoint's ``meta``, with what `extract_detector` noted in the state dict."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    meta = dict(meta) if isinstance(meta, Mapping) else {}
    noted = getattr(weights, "_metadata", {}).get("", {})
    return meta | {LEFT_OUT: noted[LEFT_OUT]} if LEFT_OUT in noted else meta
