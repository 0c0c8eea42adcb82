"""Records of results: the digests of the inputs, in a file beside each result.

``<result>.inputs.json``, or ``inputs.json`` in a folder whose results have names of their own::

    {"job": "…/test", "root": "work_dirs",
     "inputs": {"work_dirs/…/epoch_14.pth": "sha256:…", "data/VOCdevkit/VOC2007": null},
     "result": {"name": "…", "digest": "sha256:…", "size": 1234, "mtime_ns": 1234}}

It is begun before the command runs and gets its ``result`` at the end. Content counts, no date: a
copied work directory has the same digests. Size and date of the result only save reading a large
file that has not been touched since. A folder, such as one of images, has no digest and is not
compared; a store of pseudo boxes has that of its manifest, which holds the checksums of its shards.
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

END = "inputs.json"


def result_folder(job: Job) -> Path:
    """Work directory of a job: the folder of what it makes, without what has names of its own."""
    before, star, _ = job.makes.partition("*")
    return Path(before) if star else Path(job.makes).parent


def begin_record(job: Job) -> None:
    """Write the digests of a job's inputs before it starts."""
    content = {
        "job": job.name,
        "root": work_root(result_folder(job), job.name),
        "inputs": {path: digest(path) for path in job.inputs},
    }
    _write(job, content)


def end_record(job: Job, result: str | None) -> None:
    """Add the result to the record; a job started by hand has no record."""
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
    """Digests of what a result was made from, by paths as they are in today's work directory.

    Args:
        job: What makes it.
        result: The result; None for one that was begun and is not there yet.

    Returns:
        None if nothing is known of it: there is no record, or one of another result.
    """
    content = _read(_record_path(job))
    if content is None:
        return None
    noted = content.get("result")
    if (noted and noted["digest"]) != (result and digest(result)):
        return None
    then, now = content.get("root"), work_root(result_folder(job), job.name)
    inputs: dict[str, str | None] = content["inputs"]
    if then is None or now is None:
        return inputs
    return inputs | {moved_paths(path, then, now): value for path, value in inputs.items()}


def is_open(job: Job) -> bool:
    """Whether a job was started and has not ended, so that an existing result is older."""
    content = _read(_record_path(job))
    return content is not None and "result" not in content


def changed_inputs(paths: Iterable[str], recorded: dict[str, str | None]) -> list[str]:
    """What of some inputs is other than it was: ``'a.pth (sha256:0123456789ab then, … now)'``.

    Files that are no longer there, and folders, are not compared.
    """
    changed = []
    for path in paths:
        now, then = digest(path), recorded.get(path)
        if now is not None and now != then:
            changed.append(f"{path} ({(then or 'not recorded')[:19]} then, {now[:19]} now)")
    return changed


def digest(path: str) -> str | None:
    """Digest of the content of a file, or of the boxes of a store; None for a folder, or nothing.

    Raises:
        ValueError: If it is the manifest of a store that is damaged.
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
    """SHA-256 of a file, that of its record where it is untouched since."""
    record = _read(Path(f"{path}.{END}")) or {}
    noted = record.get("result", {})
    if (noted.get("size"), noted.get("mtime_ns")) == (size, mtime_ns):
        return str(noted["digest"])
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _record_path(job: Job) -> Path:
    if "*" in job.makes:
        return result_folder(job) / END
    return Path(f"{job.makes}.{END}")


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        content["inputs"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what tools/reproduce.py writes ({error!r}). Remove it: the result is "
            "then taken as one made by hand, of which the settings alone are compared"
        ) from error
    return content


def _write(job: Job, content: dict[str, Any]) -> None:
    with whole_file(_record_path(job)) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
