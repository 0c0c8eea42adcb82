"""The store of a run: a folder of shards, and the manifest that describes them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dap.cam import threshold_name

from .shard import Shard

MANIFEST = "manifest.json"
ANNOTATIONS, SUMMARY = "annotations.json", "summary.json"
SHARDS = "shards"
FORMAT = "DAP pseudo boxes, 1"


class PseudoBoxStore:
    """The pseudo boxes of a finished run, memory-mapped and read only.

    ::

        OUT/
        ├── manifest.json                     settings, hashes, categories, checksums of the shards
        ├── shards/00000-8d4f21c09ab3e657.arrow   images 0 to shard_size - 1
        ├── shards/…
        ├── annotations.json                  the same boxes for other tools
        └── summary.json                      counts, mean sizes, images that failed

    No memory is needed per image: the operating system reads pages of the files when they are
    used, and shares them among all processes of a machine.

    Args:
        path: The folder, or its ``manifest.json``.
        verify: Whether to compare the checksums of all shards with those in the manifest.

    Attributes:
        manifest: Content of the manifest.
        shards: The :class:`Shard` objects in order; all but the last have ``shard_size`` images.

    Raises:
        ValueError: If the folder has no store, or the store is unfinished or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], verify: bool = True) -> None:
        self.folder = store_folder(path)
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise ValueError(
                f"{self.folder} holds no pseudo boxes: no {MANIFEST} there. Give the folder that "
                "tools/generate_pseudo_boxes.py has written, or make one of a COCO file with "
                "tools/convert_annotations.py"
            )
        if "shards" not in manifest:
            raise ValueError(
                f"{self.folder} is not finished: run the command that writes it again; it "
                "continues where it stopped"
            )
        self.manifest = manifest
        if verify:
            _verify(self.folder, manifest["shards"])
        files = [self.folder / SHARDS / entry["file"] for entry in manifest["shards"]]
        self.shards = [Shard(file) for file in files]

    def __reduce__(self) -> tuple[type[PseudoBoxStore], tuple[Path, bool]]:
        return PseudoBoxStore, (self.folder, False)

    def __len__(self) -> int:
        return int(self.manifest["image_list"]["count"])

    @property
    def shard_size(self) -> int:
        """Images per shard."""
        return int(self.manifest["shard_size"])

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO categories in the order of the labels."""
        categories: list[dict[str, Any]] = self.manifest["categories"]
        return categories

    @property
    def thresholds(self) -> list[float]:
        """Thresholds of the run; shards store their indices. :attr:`rule` says what they mean."""
        return list(self.manifest["settings"].get("thresholds", ()))

    @property
    def rule(self) -> str | None:
        """The rule that turned maps into boxes; None if the store was not made by Step 2."""
        rule: str | None = self.manifest["settings"].get("rule")
        return rule

    @property
    def has_masks(self) -> bool:
        """Whether each box has a mask."""
        return bool(self.manifest["settings"].get("masks"))

    def threshold_names(self) -> list[str]:
        """Names of the thresholds in tables and pictures."""
        return [threshold_name(threshold, self.rule) for threshold in self.thresholds]

    def locate(self, index: int) -> tuple[Shard, int]:
        """Return the shard of an image, and its row in the shard."""
        return self.shards[index // self.shard_size], index % self.shard_size


def store_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a store from the path of the folder or of its manifest."""
    path = Path(path)
    return path.parent if path.name == MANIFEST else path


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None if there is none.

    Raises:
        ValueError: If it is damaged, or has another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and manifest["identity"] == identity_hash(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what Step 2 writes ({error!r}). It is left as it is: choose another "
            "folder, or move it away"
        ) from error
    if not known:
        raise ValueError(
            f"{path} is damaged, or of another version of DAP: expected the format {FORMAT!r} and "
            "a hash of its settings. It is left as it is: choose another folder, or move it away"
        )
    return dict(manifest)


def identity(described: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides the content of a store, flat: ``{'settings.rule': 'paper', …}``.

    Args:
        described: A manifest, of a finished store or not.
    """
    flat = {
        f"{part}.{key}": value
        for part in ("settings", "classifier", "detector", "computation", "image_list")
        for key, value in described.get(part, {}).items()
    }
    flat.pop("image_list.root", None)
    return flat | {"shard_size": described.get("shard_size")}


def identity_hash(described: Mapping[str, Any]) -> str:
    """Hash of :func:`identity` and of the categories."""
    content = [identity(described), described["categories"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_foreign_files(folder: Path) -> None:
    """Refuse a folder that has no manifest but files named like those of a run.

    Raises:
        ValueError: If there is such a file.
    """
    for name in (ANNOTATIONS, SUMMARY, SHARDS):
        if (folder / name).exists():
            raise ValueError(
                f"{folder / name} exists without a {MANIFEST}: it is not of a run of this version "
                "of DAP. It is left as it is; choose another output folder or move it away. A COCO "
                "file becomes a store by tools/convert_annotations.py"
            )


def refuse_another_run(
    folder: Path, existing: Mapping[str, Any], current: Mapping[str, Any]
) -> None:
    """Refuse to continue a run that the manifest in its folder describes differently.

    Args:
        folder: Folder of the run.
        existing: The manifest in the folder.
        current: The description of the run that starts now, with its hash as ``identity``.

    Raises:
        ValueError: If the two differ; it names the differences.
    """
    earlier, later = identity(existing), identity(current)
    differences = [
        f"{key}: earlier {earlier.get(key)!r}, now {later.get(key)!r}"
        for key in sorted(earlier.keys() | later.keys())
        if earlier.get(key) != later.get(key)
    ]
    if not differences and existing["identity"] != current["identity"]:
        differences = ["the names of the categories"]
    if differences:
        raise ValueError(
            f"{folder} holds another run, which is left as it is ({'; '.join(differences)}). "
            "Choose another output folder, or remove this one"
        )


def digests(paths: list[Path]) -> list[str]:
    """Compute the SHA-256 of files, several at a time."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path, entries: list[dict[str, Any]]) -> None:
    paths = [folder / SHARDS / entry["file"] for entry in entries]
    cure = "Run the command that wrote it again: only missing shards are computed"
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise ValueError(
            f"{absent[0]} is missing, {len(absent)} of {len(paths)} shards are. {cure}"
        )
    for path, entry, digest in zip(paths, entries, digests(paths), strict=True):
        if digest != entry["sha256"]:
            raise ValueError(
                f"{path} is damaged: its SHA-256 is {digest[:16]}…, the manifest has "
                f"{entry['sha256'][:16]}…. {cure}"
            )
