"""Writing a store, killed and taken up again as often as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from dap.files import remove_partial_files, whole_file, write_bytes
from dap.images.image_list import NamesDigest

from .coco import export_coco, write_summary
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
    shard_files,
    shard_name,
)
from .shard import Shard, encode_shard
from .sound_shards import SoundShards, failed_rows, sound_shards
from .statistics import RunStatistics

SMALLEST_SHARD, LARGEST_SHARD = 64, 4096


def default_shard_size(count: int) -> int:
    """Images per shard: a power of two, so that there are some thousand shards at most.

    ImageNet-1k has 1251 shards of 1024 images, ImageNet-22k 3467 of 4096.
    """
    size = SMALLEST_SHARD
    while size < LARGEST_SHARD and count > 2000 * size:
        size *= 2
    return size


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

    def begin(self) -> list[int]:
        """Prepare the folder, in one process; say which shards are missing.

        Returns:
            Their numbers; none if the store is finished, or lacks nothing but its end.

        Raises:
            ValueError: If the folder holds another run, or files of unknown origin.
            OSError: If it cannot be written.
        """
        manifest = read_manifest(self.folder)
        if manifest is None:
            refuse_foreign_files(self.folder)
        if manifest is None or not ("shards" in manifest or shard_files(self.folder)):
            # An earlier run wrote no shard, so its settings do not bind this one.
            self._write_manifest(self.described)
        else:
            refuse_another_run(self.folder, manifest, self.described)
        (self.folder / SHARDS).mkdir(exist_ok=True)
        for folder in (self.folder, self.folder / SHARDS):
            remove_partial_files(folder)
        sound = self._sound_shards().best
        missing = sorted(set(range(self.shards)) - sound.keys())
        if missing and manifest is not None:
            # What is derived from the shards must not exist before all of them do.
            (self.folder / SUMMARY).unlink(missing_ok=True)
            print_log(
                f"{self.folder}: {len(sound)} of {self.shards} shards exist, {len(missing)} are "
                "missing",
                logger="current",
            )
        return missing

    def failed_images(self, temporary_only: bool = False) -> dict[int, list[int]]:
        """Images in the shards that could not be used, in one process.

        Args:
            temporary_only: Whether only failures count that are not the image's own.

        Returns:
            Shard → rows in it.
        """
        failed: dict[int, list[int]] = {}
        for number, sound in sorted(self._sound_shards().best.items()):
            if sound.failed:
                rows = [row for row, _ in failed_rows(Shard(sound.path), temporary_only)]
                if rows:
                    failed[number] = rows
        return failed

    def is_finished(self, coco: bool = True) -> bool:
        """Whether :meth:`finish` has nothing to write."""
        names = (ANNOTATIONS, SUMMARY) if coco else (SUMMARY,)
        manifest = read_manifest(self.folder) or {}
        return all((self.folder / name).is_file() for name in names) and "shards" in manifest

    def finished_summary(self, coco: bool = True) -> dict[str, Any] | None:
        """The summary of a finished run; None if there is something to write."""
        if not self.is_finished(coco) or self._sound_shards().replaced:
            return None
        print_log(f"{self.folder} is finished already: nothing to do", logger="current")
        return dict(json.loads((self.folder / SUMMARY).read_text(encoding="utf-8")))

    def write(
        self, shard: int, records: Sequence[Mapping[str, Any]], right: int | None = None
    ) -> None:
        """Write a shard.

        Args:
            shard: Its number.
            records: One dict per image of :meth:`indices`: see :func:`encode_shard`, and ``top1``,
                whether the top class is right. ``id`` defaults to the index + 1.
            right: Number of images whose top class is right, where the records do not say so.

        Raises:
            ValueError: If there are not as many as the shard has images.
            OSError: If it cannot be written.
        """
        indices = self.indices(shard)
        if len(records) != len(indices):
            raise ValueError(f"shard {shard}: expected {len(indices)} images, found {len(records)}")
        statistics = RunStatistics()
        rows = [{"id": i + 1, **record} for i, record in zip(indices, records, strict=True)]
        statistics.add(rows)
        if right is not None:
            statistics.right = right
        self._write_rows(shard, rows, statistics)

    def replace(self, shard: int, records: Mapping[int, Mapping[str, Any]]) -> None:
        """Write a shard again in which images that had failed have new records.

        The shard that it replaces stays until :meth:`finish`.

        Args:
            shard: Its number.
            records: Row in the shard → record, as :meth:`write` takes it.

        Raises:
            OSError: If it cannot be written.
        """
        files = [file.path for file in shard_files(self.folder) if file.number == shard]
        old = min(map(Shard, files), key=lambda each: each.metadata["statistics"]["failed"])
        rows = [
            {"id": int(old.ids[row]), **records[row]} if row in records else record
            for row, record in enumerate(old.records())
        ]
        statistics, added = RunStatistics(), RunStatistics()
        statistics.merge(old.metadata["statistics"])
        statistics.failed -= len(records)
        added.add([rows[row] for row in records])
        statistics.merge(added.as_json())
        self._write_rows(shard, rows, statistics)

    def finish(
        self, derived_from: Mapping[str, Any] | None = None, coco: bool = True
    ) -> dict[str, Any]:
        """Check that each image stands in the shards once; write what is derived from them.

        Args:
            derived_from: Settings of another run to note in the summary.
            coco: Whether to write ``annotations.json``.

        Returns:
            The summary.

        Raises:
            ValueError: If an image is missing, stands there twice, or is not of the list.
        """
        summary = self.conclude(derived_from)
        self.write_derived(summary, coco)
        return summary

    def conclude(self, derived_from: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check the shards and write the manifest, by which the store is whole; see :meth:`finish`.

        Returns:
            The summary, which is not written yet.
        """
        sound = self._sound_shards()
        missing = sorted(set(range(self.shards)) - sound.best.keys())
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {self.shards} shards are missing, such as "
                f"number {missing[0]}. Run the same again: only those are computed"
            )
        shards = [sound.best[index] for index in range(self.shards)]
        statistics, failed = self._checked([shard.path for shard in shards])
        entries = [
            {"file": shard.path.name, "sha256": shard.digest, "bytes": shard.path.stat().st_size}
            for shard in shards
        ]
        (self.folder / SUMMARY).unlink(missing_ok=True)  # by which a run is known as finished
        self._write_manifest(self.described | {"shards": entries})
        for path in sound.replaced:
            path.unlink()
        known = {"format", "identity", "categories", "shard_size"}
        described = {key: value for key, value in self.described.items() if key not in known}
        summary = {**statistics.summary(), "failed": failed, **described}
        if derived_from is not None:
            summary["derived_from"] = dict(derived_from)
        return summary

    def write_derived(self, summary: Mapping[str, Any], coco: bool = True) -> None:
        """Write ``annotations.json`` and, last, ``summary.json``."""
        if coco:
            export_coco(PseudoBoxStore(self.folder, verify=False), self.folder / ANNOTATIONS)
        write_summary(self.folder / SUMMARY, dict(summary))

    def failures(self) -> tuple[int, str]:
        """Number of images in the shards that could not be used, and the first with its reason."""
        total, first = 0, ""
        for _, sound in sorted(self._sound_shards().best.items()):
            shard = Shard(sound.path)
            total += shard.metadata["statistics"]["failed"]
            if total and not first:
                row, reason = next(failed_rows(shard, temporary_only=False))
                first = f"{shard.file_name(row)}: {reason}"
        return total, first

    def _checked(self, paths: Sequence[Path]) -> tuple[RunStatistics, list[dict[str, str]]]:
        """Count what the shards hold; each image of the list must be there once, in its place."""
        statistics, names = RunStatistics(), NamesDigest()
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
                {"file_name": shard.file_name(row), "reason": reason}
                for row, reason in failed_rows(shard, temporary_only=False)
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

    def _sound_shards(self) -> SoundShards:
        return sound_shards(self.folder, self.shards, self.identity)

    def _write_rows(
        self, shard: int, rows: Sequence[Mapping[str, Any]], statistics: RunStatistics
    ) -> None:
        metadata = {"identity": self.identity, "shard": shard, "statistics": statistics.as_json()}
        content = encode_shard(rows, metadata, bool(self.described["settings"].get("masks")))
        write_bytes(self.folder / SHARDS / shard_name(shard, content), content)

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content, indent=1) + "\n"
        path = self.folder / MANIFEST
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return  # what was made from it stays newer
        with whole_file(path) as file:
            file.write(text)
