"""Record the digests of a job's inputs in a file beside its result.

The file is ``<result>.inputs.json``, or ``inputs.json`` if the name of the result is not known::

    {"job": "…/test", "root": "work_dirs",
     "inputs": {"work_dirs/…/epoch_14.pth": "sha256:…", "data/VOCdevkit/VOC2007": null},
     "result": {"name": "…", "digest": "sha256:…", "size": 1234, "mtime_ns": 1234}}

It is written before the command runs; ``result`` is added at the end. Only content is compared, not
dates, so a copied work directory has the same digests. Size and date of the result only avoid
reading a large file that has not changed since. A folder, such as one of images, has no digest and
is not compared. The digest of a store is that of its manifest, which has the checksums of the
shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from dap.files import whole_file
from dap.store.reader import MANIFEST, read_manifest

from .dumped import moved_paths, work_root
from .jobs import Job

SUFFIX = "inputs.json"


def result_folder(job: Job) -> Path:
    """Work directory of a job: the part of its result's path before the file name or a star."""
    before, star, _ = job.makes.partition("*")
    return Path(before) if star else Path(job.makes).parent


def begin_record(job: Job) -> None:
    """Write the digests of a job's inputs. Called before it starts."""
    content = {
        "job": job.name,
        "root": work_root(result_folder(job), job.name),
        "inputs": {path: digest(path) for path in job.inputs},
    }
    _write(job, content)


def end_record(job: Job, result: str | None) -> None:
    """Add the result to the record, if there is one."""
    content = _read(_record_path(job))
    if content is None or result is None:
        return
    stat = Path(result).stat()
    content["result"] = {
        "name": Path(result).relative_to(result_folder(job)).as_posix(),
        "digest": digest(result),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    _write(job, content)


def recorded_inputs(job: Job, result: str | None) -> dict[str, str | None] | None:
    """Read the digests of the inputs that a result was made from.

    Args:
        job: Job that makes the result.
        result: The result; None for a job that has started and not ended.

    Returns:
        Path in the current work directory → digest; None if there is no record, or one of another
        result.
    """
    content = _read(_record_path(job))
    if content is None:
        return None
    recorded = content.get("result")
    if (recorded and recorded["digest"]) != (result and digest(result)):
        return None
    old_root, new_root = content.get("root"), work_root(result_folder(job), job.name)
    inputs: dict[str, str | None] = content["inputs"]
    if old_root is None or new_root is None:
        return inputs
    return inputs | {moved_paths(path, old_root, new_root): v for path, v in inputs.items()}


def is_open(job: Job) -> bool:
    """Whether a job was started and has not ended; an existing result is from an earlier run."""
    content = _read(_record_path(job))
    return content is not None and "result" not in content


def changed_inputs(paths: Iterable[str], recorded: dict[str, str | None]) -> list[str]:
    """List inputs whose content has changed: ``'a.pth (sha256:0123456789ab then, … now)'``.

    Folders and files that no longer exist are not compared.
    """
    changed = []
    for path in paths:
        now, then = digest(path), recorded.get(path)
        if now is not None and now != then:
            changed.append(f"{path} ({(then or 'not recorded')[:19]} then, {now[:19]} now)")
    return changed


def digest(path: str) -> str | None:
    """Digest of the content of a file, or of a store; None for a folder or a missing file.

    Raises:
        ValueError: If the manifest of a store is damaged.
    """
    file = Path(path)
    if not file.is_file():
        return None
    if file.name == MANIFEST:
        return _store_digest(file)
    stat = file.stat()
    return _file_digest(str(file.absolute()), stat.st_size, stat.st_mtime_ns)


def _store_digest(manifest: Path) -> str | None:
    content = read_manifest(manifest.parent)
    if content is None or "shards" not in content:
        return None
    parts = [content["identity"], content["shards"]]
    return "store:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file, read from its record if the file has not changed since."""
    record = _read(Path(f"{path}.{SUFFIX}")) or {}
    recorded = record.get("result", {})
    if (recorded.get("size"), recorded.get("mtime_ns")) == (size, mtime_ns):
        return str(recorded["digest"])
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _record_path(job: Job) -> Path:
    if "*" in job.makes:
        return result_folder(job) / SUFFIX
    return Path(f"{job.makes}.{SUFFIX}")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["inputs"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what tools/reproduce.py writes ({error!r}). Remove it: the result then "
            "counts as one made by hand, of which only the settings are compared"
        ) from error
    return content


def _write(job: Job, content: dict[str, Any]) -> None:
    with whole_file(_record_path(job)) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
