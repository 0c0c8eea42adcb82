"""Writing a store, killed and taken up again as often as it takes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from dap.files import remove_partial_files, whole_file, write_bytes

from .coco import export_coco, write_summary
from .shards import Shard, encode_shard
from .statistics import RunStatistics
from .store import (
    FORMAT,
    MANIFEST,
    SHARDS,
    PseudoBoxStore,
    digests,
    identity,
    identity_hash,
    read_manifest,
    shard_files,
    shard_name,
)

SMALLEST_SHARD, LARGEST_SHARD = 64, 4096
ANNOTATIONS, SUMMARY = "annotations.json", "summary.json"


def default_shard_size(count: int) -> int:
    """Images per shard: a power of two, so that there are some thousand shards at most.

    ImageNet-1k has 1251 shards of 1024 images, ImageNet-22k 3467 of 4096.
    """
    size = SMALLEST_SHARD
    while size < LARGEST_SHARD and count > 2000 * size:
        size *= 2
    return size


class NamesDigest:
    """Running hash of file names in their order."""

    def __init__(self) -> None:
        self._names, self._lengths = hashlib.sha256(), hashlib.sha256()

    def update(self, names: bytes | memoryview, lengths: Sequence[int] | np.ndarray) -> None:
        """Add names, one behind the other, of so many bytes each."""
        self._names.update(names)
        self._lengths.update(np.asarray(lengths, np.int64).tobytes())

    def hexdigest(self) -> str:
        """The hash of all names so far."""
        return hashlib.sha256(self._names.digest() + self._lengths.digest()).hexdigest()


class StoreWriter:
    """Writes a :class:`PseudoBoxStore` shard by shard, in any order and by any process.

    Whatever moment it is killed at, a shard is there as a whole or not at all, and the same run
    goes on with those that are missing.

    Args:
        folder: Folder to write.
        described: What the run is made of: the manifest without format, hash and shards.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = identity_hash(described)
        self.described = {"format": FORMAT, "identity": self.identity, **described}
        self.shard_size = int(described["shard_size"])
        self.count = int(described["image_list"]["count"])
        self.thresholds = list(described["settings"].get("thresholds", ()))

    @property
    def shards(self) -> int:
        """Number of shards of the whole store."""
        return -(-self.count // self.shard_size)

    def indices(self, shard: int) -> range:
        """The images of a shard."""
        return range(shard * self.shard_size, min(self.count, (shard + 1) * self.shard_size))

    def images_of(self, shards: Iterable[int]) -> int:
        """Number of images of some shards."""
        return sum(len(self.indices(shard)) for shard in shards)

    def begin(self, retry_failed: bool = False) -> list[int]:
        """Prepare the folder, in one process; say which shards are missing.

        Args:
            retry_failed: Whether shards with images that could not be used count as missing.

        Returns:
            Their numbers; none if the store is finished, or lacks nothing but its end.

        Raises:
            ValueError: If the folder holds another run, or files of unknown origin.
            OSError: If it cannot be written.
        """
        found = read_manifest(self.folder)
        if found is None:
            self._refuse_foreign_files()
        if found is None or not ("shards" in found or shard_files(self.folder)):
            self._write_manifest(self.described)  # what was begun there has come to nothing
        else:
            self._refuse_another(found)
        (self.folder / SHARDS).mkdir(exist_ok=True)
        for folder in (self.folder, self.folder / SHARDS):
            remove_partial_files(folder)
        there = self._sound_shards(retry_failed)
        missing = sorted(set(range(self.shards)) - there.keys())
        if missing and found is not None:
            # What is derived from the shards is not there before all of them are.
            (self.folder / SUMMARY).unlink(missing_ok=True)
            print_log(
                f"{self.folder}: {self.shards - len(missing)} of {self.shards} shards are there, "
                f"{len(missing)} are missing",
                logger="current",
            )
        return missing

    def is_finished(self) -> bool:
        """Whether :meth:`finish` has nothing to write."""
        files = (self.folder / name for name in (ANNOTATIONS, SUMMARY))
        found = read_manifest(self.folder) or {}
        return all(file.is_file() for file in files) and "shards" in found

    def finished_summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, which is said; None if there is something to write."""
        if not self.is_finished():
            return None
        print_log(f"{self.folder} is finished already: nothing to do", logger="current")
        return dict(json.loads((self.folder / SUMMARY).read_text(encoding="utf-8")))

    def write(
        self, shard: int, records: Sequence[Mapping[str, Any]], right: int | None = None
    ) -> None:
        """Write a shard.

        Args:
            shard: Its number.
            records: One dict per image of :meth:`indices`: see :func:`encode_shard`, and
                ``per_threshold`` and ``top1`` as :class:`RunStatistics` counts them. ``id``
                defaults to the index + 1.
            right: Number of images whose top class is right, where the records do not say so.

        Raises:
            ValueError: If there are not as many as the shard has images.
            OSError: If it cannot be written.
        """
        indices = self.indices(shard)
        if len(records) != len(indices):
            raise ValueError(f"shard {shard}: expected {len(indices)} images, found {len(records)}")
        statistics = RunStatistics(self.thresholds)
        rows = [{"id": i + 1, **record} for i, record in zip(indices, records, strict=True)]
        statistics.add(rows)
        if right is not None:
            statistics.right = right
        metadata = {"identity": self.identity, "shard": shard, "statistics": statistics.as_json()}
        content = encode_shard(rows, metadata)
        write_bytes(self.folder / SHARDS / shard_name(shard, content), content)

    def finish(self, derived_from: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check that each image stands in the shards once; write what is derived from them.

        Args:
            derived_from: Settings of another run to note in the summary.

        Returns:
            The summary.

        Raises:
            ValueError: If an image is missing, stands there twice, or is not of the list.
        """
        there = self._sound_shards(retry_failed=False)
        missing = sorted(set(range(self.shards)) - there.keys())
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {self.shards} shards are missing, such as "
                f"number {missing[0]}. Run the same again: only those are computed"
            )
        files = [there[index] for index in range(self.shards)]
        statistics, failed = self._checked([path for path, _ in files])
        entries = [
            {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}
            for path, digest in files
        ]
        self._write_manifest(self.described | {"shards": entries})
        export_coco(PseudoBoxStore(self.folder, verify=False), self.folder / ANNOTATIONS)
        known = {"format", "identity", "categories", "shard_size"}
        described = {key: value for key, value in self.described.items() if key not in known}
        summary = {**statistics.summary(), "failed": failed, **described}
        if derived_from is not None:
            summary["derived_from"] = dict(derived_from)
        write_summary(self.folder / SUMMARY, summary)
        return summary

    def failures(self) -> tuple[int, str]:
        """Number of images in the shards that could not be used, and the first with its reason."""
        total, first = 0, ""
        for file in shard_files(self.folder):
            shard = Shard(file.path)
            total += shard.metadata["statistics"]["failed"]
            if total and not first:
                row, why = next((r, w) for r, w in shard.reasons() if not shard.sizes_hw[0][r])
                first = f"{shard.file_name(row)}: {why}"
        return total, first

    def _checked(self, paths: Sequence[Path]) -> tuple[RunStatistics, list[dict[str, str]]]:
        """Count what the shards hold; each image of the list must be there once, in its place."""
        statistics, names = RunStatistics(self.thresholds), NamesDigest()
        failed: list[dict[str, str]] = []
        for index, path in enumerate(paths):
            shard = Shard(path)
            if len(shard) != len(self.indices(index)):
                raise ValueError(
                    f"{path} holds {len(shard)} images, expected {len(self.indices(index))}. "
                    "Remove it and run the same again"
                )
            names.update(shard.all_names, shard.name_lengths)
            statistics.merge(shard.metadata["statistics"])
            failed += [
                {"file_name": shard.file_name(row), "reason": why}
                for row, why in shard.reasons()
                if not shard.sizes_hw[0][row]
            ]
        expected = self.described["image_list"].get("names_sha256")
        if expected not in (None, names.hexdigest()):
            raise ValueError(
                f"{self.folder}: the file names in its shards are not those of the image list. "
                f"Remove {SHARDS} and run the same again"
            )
        without = statistics.without_boxes.total()
        print_log(
            f"{self.folder}: each of {self.count} images is there once: "
            f"{statistics.images - without} with boxes, {without} without, {len(failed)} failed",
            logger="current",
        )
        return statistics, failed

    def _sound_shards(self, retry_failed: bool) -> dict[int, tuple[Path, str]]:
        """The shards that are whole and of this run, with their SHA-256.

        What is not is removed and named.
        """
        files = [file for file in shard_files(self.folder) if file.number < self.shards]
        sound: dict[int, tuple[Path, str]] = {}
        found = digests([file.path for file in files])
        for file, digest in zip(files, found, strict=True):
            fault = None
            if not digest.startswith(file.digest):
                fault = "it is damaged"
            elif (metadata := Shard(file.path).metadata).get("identity") != self.identity:
                fault = "it is of another run"
            elif retry_failed and metadata["statistics"]["failed"]:
                fault = f"it has {metadata['statistics']['failed']} images that failed"
            if fault is None and file.number not in sound:
                sound[file.number] = file.path, digest
                continue
            if fault:
                print_log(f"{file.path} is removed: {fault}", "current", logging.WARNING)
            file.path.unlink()
        return sound

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1) + "\n"
        path = self.folder / MANIFEST
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return  # what was made from it stays newer
        with whole_file(path) as file:
            file.write(text)

    def _refuse_foreign_files(self) -> None:
        for name in (ANNOTATIONS, SUMMARY, SHARDS):
            if (self.folder / name).exists():
                raise ValueError(
                    f"{self.folder / name} exists without a {MANIFEST}: it is not of a run of this "
                    "version of DAP. It is left as it is; choose another output folder or move it "
                    "away. A COCO file becomes a store by tools/convert_annotations.py"
                )

    def _refuse_another(self, found: Mapping[str, Any]) -> None:
        earlier, now = identity(found), identity(self.described)
        differences = [
            f"{key}: {earlier.get(key)!r} there, {now.get(key)!r} now"
            for key in sorted(earlier.keys() | now.keys())
            if earlier.get(key) != now.get(key)
        ]
        if not differences and found["identity"] != self.identity:
            differences = ["the names of the categories"]
        if differences:
            raise ValueError(
                f"{self.folder} holds another run, which is left as it is "
                f"({'; '.join(differences)}). Choose another output folder, or remove this one"
            )
