"""Error messages for checkpoint files that cannot be read: the cause, and the cure."""

import pickle
import pickletools
import re
import struct
import zipfile
from pathlib import Path

EXPECTED = (
    "a checkpoint of mmengine, mmdet or mmpretrain, a state dict saved by torch.save, or a "
    ".safetensors file"
)

# torch.save before 1.6 wrote this number, as a separate pickle, at the start of each file.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


def obstacle(path: Path, start: bytes) -> str:
    """Explain why a file is no checkpoint of torch, judging by its first bytes.

    Args:
        path: The file.
        start: Its first 512 bytes.

    Returns:
        What was found, what was expected and the cure; ``''`` if torch may be able to read it.
    """
    kind = "" if start.startswith((b"PK", b"\x80")) else _kind_by_start(start)
    names = _names_in_zip(path) if start.startswith(b"PK") else None
    if names is not None:
        if "constants.pkl" in names:
            return (
                f"is a TorchScript archive of torch.jit.save. Expected {EXPECTED}. Save the "
                f"weights alone: torch.save(torch.jit.load({path.name!r}).state_dict(), "
                "'weights.pth')."
            )
        if "data.pkl" not in names:
            kind = f"a zip archive of another kind (it holds {names[0] if names else 'nothing'})"
    elif start.startswith(b"\x80") and len(start) > 32 and _LEGACY_MAGIC not in start[:32]:
        return (
            f"is a pickle that torch.save did not write. Expected {EXPECTED}. Save the weights "
            "in its library: torch.save({name: torch.as_tensor(value) for name, value in "
            "weights.items()}, 'weights.pth')."
        )
    elif start[257:262] == b"ustar":
        kind = "a tar archive (if the checkpoint is a file in it, unpack it)"
    if not kind:
        return ""
    return (
        f"is no checkpoint: found {kind}, expected {EXPECTED}. Check the path, or download the "
        "file again."
    )


def _names_in_zip(path: Path) -> list[str] | None:
    """List the files of a zip archive, without the top folder; None if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.split("/", 1)[-1] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError):
        return None


def _kind_by_start(start: bytes) -> str:
    """Determine the kind of a file from its first bytes."""
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
    start = start[:16]
    if start.isascii() and start.split(b"\n")[0].decode().isprintable():
        return f"text ({start.decode()!r}…)"
    return f"bytes {start[:4].hex(' ')}…"


def is_cut(path: Path) -> bool:
    """Whether a file of torch.save is truncated, checked without executing its pickles.

    Args:
        path: A file that torch.load failed to read: a zip archive, or a sequence of pickles as
            before torch 1.6.

    Returns:
        True if it is; False also if only tensor values at the end of a legacy file are missing.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return _names_in_zip(path) is None
        file.seek(0)
        try:
            for _ in range(5):  # magic, version, system, the object, the keys of its storages
                for _ in pickletools.genops(file):
                    pass
        except (ValueError, IndexError, struct.error):
            return True
    return False


def unreadable(name: str, error: Exception, is_cut: bool = False) -> str:
    """Explain why the safe loader failed to read a file.

    Args:
        name: File or URL.
        error: The error of the loader.
        is_cut: Whether the file is truncated, so that names of classes may be truncated too.

    Returns:
        What was found, what was expected and the cure.
    """
    cause = reason(error)
    unknown = re.search(r"(?:GLOBAL|got) (?:<class ')?([\w.]+\.[\w.]+)", cause)
    if unknown and not is_cut:
        return (
            f"{name} holds an object of {unknown[1]}, which the safe loader does not restore; "
            f"expected {EXPECTED}. Save the weights alone, torch.save(model.state_dict(), …), or, "
            "if you trust the file, allow the class with torch.serialization.add_safe_globals."
        )
    if "Unsupported operand" in cause and not is_cut:
        return (
            f"{name} has a pickle protocol that the safe loader does not read. Expected {EXPECTED}."
            " Save it again with torch.save and the default pickle_protocol, 2."
        )
    detail = "" if is_cut else f" ({cause})"
    return (
        f"{name} cannot be read as a checkpoint{detail}: it is truncated or damaged. Expected "
        f"{EXPECTED}. Save or download it again."
    )


def reason(error: Exception) -> str:
    """Extract the cause from the text of an error, as one line.

    Args:
        error: The error of a loader.

    Returns:
        The cause; with the error's type unless its text is informative.
    """
    text = str(error)
    _, _, detail = text.rpartition("WeightsUnpickler error: ")
    lines = detail.strip().splitlines() or ["end of file"]
    is_named = isinstance(error, RuntimeError | pickle.UnpicklingError | OSError | EOFError)
    first = lines[0].rstrip(". ")
    return first if is_named else f"{type(error).__name__}: {first}"
