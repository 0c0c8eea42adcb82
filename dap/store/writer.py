"""Writing a store shard by shard; a run that was killed continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from dap.files import remove_partial_files, whole_file, write_bytes
from dap.images.image_list import NamesDigest

from .coco import export_coco
from .reader import (
    ANNOTATIONS,
    FORMAT,
    MANIFEST,
    SHARDS,
    SUMMARY,
    PseudoBoxStore,
    identity_hash,
    read_manifest,
    refuse_another_run,
    refuse_foreign_files,
)
from .shard import Shard, encode_shard
from .shard_files import ValidShard, failed_rows, shard_files, shard_name, valid_shards
from .statistics import count_right, run_statistics

SMALLEST_SHARD, LARGEST_SHARD = 64, 4096


def default_shard_size(count: int) -> int:
    """Return the images per shard: a power of two that gives at most a few thousand shards.

    ImageNet-1k has 1251 shards of 1024 images, ImageNet-22k 3467 of 4096.
    """
    size = SMALLEST_SHARD
    while size < LARGEST_SHARD and count > 2000 * size:
        size *= 2
    return size


class StoreWriter:
    """Writes a :class:`PseudoBoxStore` shard by shard, in any order and by any process.

    A shard is written completely or not at all, so a run that was killed at any moment continues
    with the missing shards.

    Args:
        folder: Folder to write.
        described: Description of the run: the manifest without format, hash and shards.
    """

    def __init__(self, folder: Path, described: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = identity_hash(described)
        self.described = {"format": FORMAT, "identity": self.identity, **described}
        self.shard_size = int(described["shard_size"])
        self.count = int(described["image_list"]["count"])

    @property
    def shards(self) -> int:
        """Number of shards of the whole store."""
        return -(-self.count // self.shard_size)

    def indices(self, shard: int) -> range:
        """Indices of the images of a shard."""
        return range(shard * self.shard_size, min(self.count, (shard + 1) * self.shard_size))

    def images_of(self, shards: Iterable[int]) -> int:
        """Number of images of some shards."""
        return sum(len(self.indices(shard)) for shard in shards)

    def begin(self) -> list[int]:
        """Prepare the folder, and find the missing shards; to be called in one process.

        Returns:
            Numbers of the missing shards. There are none if only :meth:`finish` is left to do.

        Raises:
            ValueError: If the folder holds another run, or files of unknown origin.
            OSError: If the folder cannot be written.
        """
        manifest = read_manifest(self.folder)
        if manifest is None:
            refuse_foreign_files(self.folder)
        if manifest is None or not ("shards" in manifest or shard_files(self.folder)):
            # An earlier run wrote no shard, so this run may have other settings.
            self._write_manifest(self.described)
        else:
            refuse_another_run(self.folder, manifest, self.described)
        (self.folder / SHARDS).mkdir(exist_ok=True)
        for folder in (self.folder, self.folder / SHARDS):
            remove_partial_files(folder)
        valid, _ = self._valid_shards()
        missing = sorted(set(range(self.shards)) - valid.keys())
        if missing and manifest is not None:
            # The summary must not exist before all shards do.
            (self.folder / SUMMARY).unlink(missing_ok=True)
            text = f"{len(valid)} of {self.shards} shards exist, {len(missing)} are missing"
            print_log(f"{self.folder}: {text}", "current")
        return missing

    def failed_images(self, temporary_only: bool = False) -> dict[int, list[int]]:
        """List the images that could not be used, by shard; to be called in one process.

        Args:
            temporary_only: Whether to return only those with a temporary failure.

        Returns:
            Number of the shard → rows in the shard.
        """
        rows = {
            number: [row for row, _ in failed_rows(valid.shard, temporary_only)]
            for number, valid in self._valid_shards()[0].items()
        }
        return {number: failed for number, failed in rows.items() if failed}

    def is_finished(self, coco: bool = True) -> bool:
        """Whether all files of the store are written."""
        names = (ANNOTATIONS, SUMMARY) if coco else (SUMMARY,)
        manifest = read_manifest(self.folder) or {}
        return all((self.folder / name).is_file() for name in names) and "shards" in manifest

    def finished_summary(self, coco: bool = True) -> dict[str, Any] | None:
        """Return the summary of a finished run; None if there is something left to write."""
        if not self.is_finished(coco) or self._valid_shards()[1]:
            return None
        print_log(f"{self.folder} is finished already: nothing to do", logger="current")
        return dict(json.loads((self.folder / SUMMARY).read_text(encoding="utf-8")))

    def write(
        self, shard: int, records: Sequence[Mapping[str, Any]], right: int | None = None
    ) -> None:
        """Write a shard.

        Args:
            shard: Number of the shard.
            records: One dict per image of :meth:`indices` as :func:`encode_shard` takes it, and
                ``top1``, whether the top class is right. ``id`` defaults to the index + 1.
            right: Number of images whose top class is right, if the records have no ``top1``.

        Raises:
            ValueError: If the number of records is not the number of images of the shard.
            OSError: If the shard cannot be written.
        """
        indices = self.indices(shard)
        if len(records) != len(indices):
            raise ValueError(f"shard {shard}: expected {len(indices)} images, found {len(records)}")
        rows = [{"id": i + 1, **record} for i, record in zip(indices, records, strict=True)]
        self._write_rows(shard, rows, count_right(rows) if right is None else right)

    def replace(self, shard: int, records: Mapping[int, Mapping[str, Any]]) -> None:
        """Write a shard again with new records of images that had failed.

        The earlier file of the shard is kept until :meth:`conclude`.

        Args:
            shard: Number of the shard.
            records: Row in the shard → record as :meth:`write` takes it.

        Raises:
            OSError: If the shard cannot be written.
        """
        files = [Shard(path) for number, path in shard_files(self.folder) if number == shard]
        old = min(files, key=lambda file: file.failed)
        rows = [
            {"id": int(old.ids[row]), **records[row]} if row in records else record
            for row, record in enumerate(old.records())
        ]
        added = count_right(list(records.values()))
        right = None if old.right is None or added is None else old.right + added
        self._write_rows(shard, rows, right)

    def finish(
        self, derived_from: Mapping[str, Any] | None = None, coco: bool = True
    ) -> dict[str, Any]:
        """Check the shards, and write the remaining files: :meth:`conclude`, :meth:`write_derived`.

        Args:
            derived_from: Settings of another run, recorded in the summary.
            coco: Whether to write ``annotations.json``.

        Returns:
            The summary.

        Raises:
            ValueError: If shards are missing, or their images are not those of the image list.
        """
        summary = self.conclude(derived_from)
        self.write_derived(summary, coco)
        return summary

    def conclude(self, derived_from: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check the shards, and write the manifest that makes the store complete.

        Returns:
            The summary, which is not written yet.

        Raises:
            ValueError: If shards are missing, or their images are not those of the image list.
        """
        valid, superseded = self._valid_shards()
        missing = sorted(set(range(self.shards)) - valid.keys())
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {self.shards} shards are missing, such as "
                f"number {missing[0]}. Run the same command again: only those are computed"
            )
        statistics, failed = self._checked([shard for shard, _ in valid.values()])
        paths = {Path(shard.path): digest for shard, digest in valid.values()}
        entries = [
            {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}
            for path, digest in paths.items()
        ]
        (self.folder / SUMMARY).unlink(missing_ok=True)  # it marks a run as finished
        self._write_manifest(self.described | {"shards": entries})
        for path in superseded:
            path.unlink()
        omitted = {"format", "identity", "categories", "shard_size"}
        described = {key: value for key, value in self.described.items() if key not in omitted}
        origin = {} if derived_from is None else {"derived_from": dict(derived_from)}
        return {**statistics, "failed": failed, **described, **origin}

    def write_derived(self, summary: Mapping[str, Any], coco: bool = True) -> None:
        """Write ``annotations.json`` and then ``summary.json``, which marks the run as finished."""
        if coco:
            export_coco(PseudoBoxStore(self.folder, verify=False), self.folder / ANNOTATIONS)
        with whole_file(self.folder / SUMMARY) as file:
            file.write(json.dumps(summary, indent=2) + "\n")

    def failures(self) -> tuple[int, str]:
        """Return the number of images that could not be used, and the first with its reason."""
        shards = [valid.shard for valid in self._valid_shards()[0].values()]
        failed = _failed(shards)
        example = next((f"{each['file_name']}: {each['reason']}" for each in failed), "")
        return sum(shard.failed for shard in shards), example

    def _checked(self, shards: Sequence[Shard]) -> tuple[dict[str, Any], list[dict[str, str]]]:
        """Count the images of all shards; they must be those of the image list, in its order."""
        names = NamesDigest()
        for index, shard in enumerate(shards):
            if len(shard) != len(self.indices(index)):
                raise ValueError(
                    f"{shard.path} holds {len(shard)} images, expected {len(self.indices(index))}. "
                    "Remove it and run the same command again"
                )
            names.update(shard.all_names, shard.name_lengths)
        expected = self.described["image_list"].get("names_sha256")
        if expected not in (None, names.hexdigest()):
            raise ValueError(
                f"{self.folder}: the file names in its shards are not those of the image list. "
                f"Remove {SHARDS} and run the same command again"
            )
        statistics = run_statistics(shards)
        failed = list(_failed(shards))
        without = statistics["images_without_boxes"]
        text = (
            f"{statistics['images'] - without} with boxes, {without} without, {len(failed)} failed"
        )
        print_log(f"{self.folder}: each of {self.count} images is stored once: {text}", "current")
        return statistics, failed

    def _valid_shards(self) -> tuple[dict[int, ValidShard], list[Path]]:
        return valid_shards(self.folder, self.shards, self.identity)

    def _write_rows(self, shard: int, rows: Sequence[Mapping[str, Any]], right: int | None) -> None:
        metadata = {"identity": self.identity, "shard": shard, "statistics": {"right": right}}
        content = encode_shard(rows, metadata, bool(self.described["settings"].get("masks")))
        name = shard_name(shard, hashlib.sha256(content).hexdigest())
        write_bytes(self.folder / SHARDS / name, content)

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1) + "\n"
        path = self.folder / MANIFEST
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return  # files that are derived from it stay newer
        with whole_file(path) as file:
            file.write(text)


def _failed(shards: Iterable[Shard]) -> Iterator[dict[str, str]]:
    """Iterate over the images that could not be used: file name and reason."""
    for shard in shards:
        for row, reason in failed_rows(shard, temporary_only=False):
            yield {"file_name": shard.file_name(row), "reason": reason}
