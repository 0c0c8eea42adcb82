"""Read checkpoint files of any kind with torch's safe loader."""

import argparse
import json
import os
import pathlib
import pickle
import re
import struct
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError, safe_open

from dap.checkpoint_faults import is_cut, obstacle, reason, unreadable

# Classes that training scripts save beside the weights: arguments, paths and counts. None of them
# executes code when it is restored. Paths become PurePosixPath, which never opens a file.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    types.SimpleNamespace,
    defaultdict,
    *(dict, list, tuple, int, float, str),
    *(
        (pathlib.PurePosixPath, f"{module}.{kind}Path")
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "PurePosix", "Windows", "PureWindows")
    ),
]
# Errors of pickle for a damaged file, which have no common base class; UnicodeDecodeError is a
# ValueError, KeyError and IndexError are LookupErrors.
_DAMAGED = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    OverflowError,
    struct.error,
)
_WEIGHT_FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".index.json")


def read_checkpoint(checkpoint: str | os.PathLike[str]) -> Any:
    """Read the content of a checkpoint onto the CPU with torch's safe loader.

    Args:
        checkpoint: File, index of a checkpoint in several parts (``*.index.json``), or URL; see
            `dap.checkpoint.load_weights`.

    Returns:
        The saved object. For safetensors, it is ``{'state_dict': …, 'meta': …}``.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If a URL cannot be fetched.
        ValueError: If it is no checkpoint, is damaged, or contains classes that the safe loader
            does not allow.
    """
    name = os.fspath(checkpoint)
    with torch.serialization.safe_globals(_HARMLESS):
        return _read_url(name) if "://" in name else _read_file(Path(name).expanduser())


@contextmanager
def _safe_loader() -> Iterator[None]:
    """Force the safe loader, which torch.hub switches off for URLs by default."""
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
    """Read a checkpoint from a URL that MMEngine supports."""
    try:
        with _safe_loader():
            return CheckpointLoader.load_checkpoint(url, map_location="cpu")
    except OSError as error:
        raise OSError(
            f"{url} cannot be fetched ({error}). Check the address and the network, or download it "
            "by other means and pass the file."
        ) from error
    except _DAMAGED as error:
        if isinstance(error, KeyError | ImportError) and not url.startswith("http"):
            raise ValueError(
                f"{url} is not known to MMEngine ({reason(error)}), expected the name of a model "
                "in its zoo. Check the name, or download the file by other means and pass that."
            ) from error
        raise ValueError(unreadable(url, error)) from error


def _read_file(path: Path) -> Any:
    """Read a local file, or several with their index."""
    if not path.exists():
        raise FileNotFoundError(
            f"no checkpoint at {path}. Check the path; it is relative to the working directory "
            f"({Path.cwd()})."
        )
    if path.is_dir():
        raise ValueError(_about_folder(path))
    part = re.search(r"-\d{5}-of-(\d{5})\.", path.name)
    if part and int(part[1]) > 1:
        indices = sorted(p.name for p in path.parent.glob("*.index.json"))
        raise ValueError(
            f"{path} holds one of {int(part[1])} parts of a checkpoint. Pass the index of all "
            f"parts, expected beside it: {', '.join(indices) or '*.index.json, which is missing'}."
        )
    return _read_parts(path) if path.name.endswith(".index.json") else _read_whole(path)


def _about_folder(path: Path) -> str:
    """Error message for a folder instead of a file; it names the checkpoints in the folder."""
    if (path / ".metadata").exists():
        return (
            f"{path} is a folder of torch.distributed.checkpoint, expected a file. Convert it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} weights.pth"
        )
    inside = sorted(p.name for p in path.iterdir() if p.name.endswith(_WEIGHT_FILES))
    return (
        f"{path} is a folder, expected a file. Name the checkpoint in it: "
        f"{', '.join(inside[-3:]) or 'it has none'}."
    )


def _read_parts(index: Path) -> dict[str, Any]:
    """Read a checkpoint that is split into several files, by its index."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        paths = [index.parent / file for file in sorted(set(files.values()))]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is no readable index of a checkpoint ({reason(error)}). Expected JSON with "
            "'weight_map', the file of each tensor. Download it again."
        ) from error
    if absent := [path.name for path in paths if not path.is_file()]:
        raise FileNotFoundError(
            f"{index} names {absent[0]}, which is not beside it: {len(absent)} of {len(paths)} "
            "files are missing. Download all of them into its folder."
        )
    weights: dict[str, Any] = {}
    for path in paths:
        content = _read_whole(path)
        weights |= content.get("state_dict", content) if isinstance(content, dict) else {}
    if lost := sorted(files.keys() - weights.keys()):
        raise ValueError(
            f"{index} names {lost[0]}, which {files[lost[0]]} does not hold: {len(lost)} of "
            f"{len(files)} tensors are missing. Download the files again."
        )
    return {"state_dict": weights}


def _read_whole(path: Path) -> Any:
    """Read one file; its kind is determined from its content, not its name."""
    with path.open("rb") as file:
        start = file.read(512)
    # The length of the header as eight bytes, then the header as JSON.
    if start[6:9] == b"\0\0{":
        return _read_safetensors(path)
    if fault := obstacle(path, start):
        raise ValueError(f"{path} {fault}")
    try:
        with path.open("rb") as file:  # opened here, because torch 2.15 checks the suffix of a path
            return torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise ValueError(unreadable(str(path), error, is_cut(path))) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file, in the structure of a checkpoint of MMEngine."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {"state_dict": weights, "meta": dict(file.metadata() or {})}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no readable safetensors file ({error}). It is truncated or of another "
            "kind: download or save it again."
        ) from error
