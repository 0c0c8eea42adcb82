"""k images per class of a detection set, for training with few labels (DAP, Figures 3 and 4).

For each class, k images with a usable object of it are drawn without replacement. The classes take
turns, the one with the fewest images first: in each of k rounds each class takes its next image
that no class has taken yet. Hence a subset has k x classes images (the paper: 5-shot on the 20
classes of VOC is 100 images), and the 5-shot subset of a seed lies within its 10-shot subset. Only
a class that has no image left of its own shares one that another class has taken.

An image keeps all its boxes, whichever class it was drawn for: an object without its box would be
trained as background. So a class is in more images than k. ``record.json`` counts both: for each
class ``drawn_for`` (images drawn for it, k at most), ``images`` (images with a usable object of it)
and ``boxes`` (its usable objects). Usable means what mmdet trains on: not difficult, crowd or
ignored, and at least one pixel wide and high.

Each class has its images in the order of the sha256 of ``{seed}/{class}/{image}``. No random
generator takes part: the same images under the same names, of VOC ``{folder}/{id}`` and of a COCO
file their ids, give the same subset on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dap.datasets.few_shot_coco import read_coco, read_data
from dap.datasets.few_shot_source import DetectionSource, warn
from dap.datasets.few_shot_voc import read_voc
from dap.files import whole_file


def make_few_shot_subsets(
    out: str | os.PathLike[str],
    shots: Sequence[int],
    seeds: Sequence[int] = (0,),
    voc: Sequence[str | os.PathLike[str]] | None = None,
    coco: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    split: str = "trainval",
    name: str | None = None,
    disjoint: bool = False,
    exclude: Sequence[str | os.PathLike[str]] = (),
) -> list[Path]:
    """Read a detection set and write subsets of it with k images per class.

    ::

        out/
        ├── voc0712_5shot_seed0/
        │   ├── VOC2007.txt      ids, one per line, for mmdet's VOCDataset
        │   ├── VOC2012.txt
        │   ├── annotations.json the same for CocoDataset; images are VOC2007/JPEGImages/…
        │   └── record.json      what was drawn, and how many images and boxes of each class
        └── coco_10shot_seed0/
            ├── annotations.json
            └── record.json

    Args:
        out: Folder to write to.
        shots: Each k. A draw for a smaller k lies within that for a larger one.
        seeds: A draw for each.
        voc: Folders in VOC layout, see `read_voc`. Either these, ``coco`` or ``data``.
        coco: COCO file, see `read_coco`.
        data: Detection set in any format, of which the training split is taken, see `read_data`.
        split: VOC list to draw from.
        name: What the folders' names begin with. Defaults to ``voc0712`` for VOC2007 and VOC2012,
            ``coco`` for ``instances_*.json``, otherwise to the names of the folders or the file.
        disjoint: Draw no image that was drawn for an earlier seed and the largest k.
        exclude: Text files or COCO files with names of images that are never drawn.

    Returns:
        The folders, also those that held the same draw before.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If an argument or a file is malformed, or no usable box is left.
        FileExistsError: If a folder holds another draw. Then none is written.
    """
    _check(shots, seeds, name)
    if [bool(voc), bool(coco), bool(data)].count(True) != 1:
        raise ValueError(
            "expected either folders in VOC layout (voc) or a COCO file (coco), or a set in any "
            "format (data)"
        )
    if data:
        source = read_data(data, exclude)
    else:
        source = read_coco(coco, exclude) if coco else read_voc(voc or (), split, exclude)
    draws: list[tuple[Path, dict[str, list[str]], dict[str, Any]]] = []
    taken: set[str] = set()
    earlier: list[int] = []
    for seed in seeds:
        images_of = {
            label: [i for i, counts in source.boxes.items() if label in counts and i not in taken]
            for label in source.classes
        }
        drawn = draw_shots(images_of, max(shots), seed)
        for k in sorted(set(shots)):
            first = {label: images[:k] for label, images in drawn.items()}
            folder = Path(out) / f"{name or source.name}_{k}shot_seed{seed}"
            record: dict[str, Any] = {"name": name or source.name, "k": k, "seed": seed}
            record |= _count(source, images_of, first, k)
            record |= {"disjoint_from": list(earlier), "disjoint_k": max(shots) if earlier else 0}
            draws.append((folder, first, record))
        if disjoint:
            earlier.append(seed)
            taken.update(*drawn.values())
    for draw in draws:
        _compare(source, *draw)
    for draw in draws:
        _write_draw(source, *draw)
    return [folder for folder, *_ in draws]


def draw_shots(images_of: Mapping[str, Collection[str]], k: int, seed: int) -> dict[str, list[str]]:
    """Draw k images for each class, or all where a class has fewer.

    Args:
        images_of: Class → names of the images with a usable object of it.
        k: Images per class.
        seed: Of the order in which a class takes its images.

    Returns:
        Class → images drawn for it, as they were drawn: the first j of each class are the draw
        for j images per class. No class has an image twice; two classes share one only where the
        second has none left that is its own.
    """
    order = sorted(images_of, key=lambda label: (len(images_of[label]), label))
    waiting = {label: _permuted(images_of[label], label, seed) for label in order}
    drawn: dict[str, list[str]] = {label: [] for label in images_of}
    taken: set[str] = set()
    for _ in range(k):
        for label in order:
            rest = waiting[label]
            if not rest:
                continue
            image = next((image for image in rest if image not in taken), rest[0])
            rest.remove(image)
            drawn[label].append(image)
            taken.add(image)
    return drawn


def _permuted(images: Collection[str], label: str, seed: int) -> list[str]:
    def digest(image: str) -> bytes:
        return hashlib.sha256(f"{seed}/{label}/{image}".encode()).digest()

    return sorted(images, key=digest)


def _check(shots: Sequence[int], seeds: Sequence[int], name: str | None) -> None:
    if not shots or min(shots) < 1:
        raise ValueError(f"shots: found {list(shots)}, expected numbers of images from 1 on")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: found {list(seeds)}, expected one or more, each once")
    if name is not None and name != os.path.basename(name):
        raise ValueError(f"name: found {name!r}, expected a name of a folder, not a path (use out)")


def _count(
    source: DetectionSource,
    images_of: Mapping[str, Collection[str]],
    drawn: Mapping[str, Sequence[str]],
    k: int,
) -> dict[str, Any]:
    """Describe the source of a draw, and count its images and boxes."""
    names = {image for images in drawn.values() for image in images}
    subset = [source.boxes[image] for image in names]
    return {
        "images": len(subset),
        "sources": list(source.paths),
        "split": source.split,
        "sha256": source.sha256,
        "excluded": dict(source.excluded),
        "short": {label: len(images) for label, images in drawn.items() if len(images) < k},
        "classes": {
            label: {
                "available": len(images_of[label]),
                "drawn_for": len(images),
                "images": sum(label in counts for counts in subset),
                "boxes": sum(counts.get(label, 0) for counts in subset),
            }
            for label, images in drawn.items()
        },
    }


def _files(source: DetectionSource, drawn: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return source.files({image for images in drawn.values() for image in images})


def _write_draw(
    source: DetectionSource,
    folder: Path,
    drawn: Mapping[str, Sequence[str]],
    record: Mapping[str, Any],
) -> None:
    """Write the missing files of a draw, the record last."""
    _warn_of_shortage(folder, record)
    files = _files(source, drawn)
    for name, text in files.items():
        if not text:
            warn(
                f"{folder / name}: no image was drawn from there, and mmdet reads no empty list. "
                "Leave it out of the config, or use annotations.json"
            )
    for name, text in (files | {"record.json": json.dumps(record, indent=2) + "\n"}).items():
        if not (folder / name).exists():
            with whole_file(folder / name) as file:
                file.write(text)


def _warn_of_shortage(folder: Path, record: Mapping[str, Any]) -> None:
    if record["short"]:
        counts = ", ".join(
            f"{label} {drawn} of {record['classes'][label]['available']}"
            for label, drawn in record["short"].items()
        )
        warn(
            f"{folder}: {len(record['short'])} of {len(record['classes'])} classes got fewer than "
            f"{record['k']} images (drawn of available, where an image is drawn for one class "
            f"only): {counts}"
        )


def _compare(
    source: DetectionSource,
    folder: Path,
    drawn: Mapping[str, Sequence[str]],
    record: Mapping[str, Any],
) -> None:
    """Let the same draw pass, whole or interrupted, wherever its source lay."""
    if not folder.exists():
        return
    cure = "Nothing was written. Take another name or another folder, or remove this one"
    files = _files(source, drawn)
    try:
        texts = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("record.json", *files)
            if (folder / name).exists()
        }
        found = json.loads(texts.pop("record.json")) if "record.json" in texts else record
    except (ValueError, OSError) as error:
        raise FileExistsError(f"{folder}: cannot read what is there: {error}. {cure}") from error
    if isinstance(found, dict):
        record = {**record, "sources": found.get("sources")}
    difference = _difference(found, record)
    if difference:
        raise FileExistsError(f"{folder} holds another draw: {difference}. {cure}")
    changed = [name for name, text in texts.items() if text != files[name]]
    if changed:
        raise FileExistsError(
            f"{folder} holds another draw: {changed[0]} has other images or boxes. {cure}"
        )


def _difference(found: object, expected: object, where: str = "record.json") -> str:
    """Name the first difference of two json values, or nothing."""
    if not (isinstance(found, dict) and isinstance(expected, dict)):
        return "" if found == expected else f"{where} has {found!r}, this draw {expected!r}"
    keys = [*expected, *(key for key in found if key not in expected)]
    differences = (_difference(found.get(k), expected.get(k), f"{where}: {k}") for k in keys)
    return next(filter(None, differences), "")
