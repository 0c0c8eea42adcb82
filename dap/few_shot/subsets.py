"""k images per class of a detection set, for training with few labels (DAP, Figures 3 and 4).

For each class, k images with a usable object of it are drawn without replacement. In each of k
rounds, one image is drawn for each class, starting with the class with the fewest images. It is the
next image of the class that has not been drawn yet. A subset therefore has k x classes images
(the paper: 5-shot on the 20 classes of VOC is 100 images), and the 5-shot subset of a seed is part
of its 10-shot subset. An image is drawn for a second class only if this class has no undrawn one.

An image keeps all its boxes, whichever class it was drawn for, since an object without its box
would be trained as background. A class is thus in more than k images. ``record.json`` counts both:
for each class ``drawn_for`` (images drawn for it, at most k), ``images`` (images with a usable
object of it) and ``boxes`` (its usable objects). Usable objects are those that mmdet trains on: not
difficult, crowd or ignored, and at least one pixel wide and high.

The images of each class are ordered by the sha256 of ``{seed}/{class}/{image}``, without a random
generator: the same images with the same keys (VOC: ``{folder}/{id}``; COCO: ids) give the same
subset on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dap.files import whole_file

from .coco import read_coco, read_data
from .source import DetectionSource, warn
from .voc import read_voc


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
        │   └── record.json      what was drawn, and numbers of images and boxes per class
        └── coco_10shot_seed0/
            ├── annotations.json
            └── record.json

    Args:
        out: Folder to write to.
        shots: Values of k. The subset of a smaller k is part of that of a larger one.
        seeds: Seeds; each gives one subset per k.
        voc: Folders in VOC layout, see `read_voc`. Exactly one of ``voc``, ``coco`` and ``data``
            is required.
        coco: COCO file, see `read_coco`.
        data: Detection set in any format, of which the training split is read, see `read_data`.
        split: VOC list to draw from.
        name: Prefix of the folder names. Defaults to ``voc0712`` for VOC2007 and VOC2012, ``coco``
            for ``instances_*.json``, and the names of the folders or the file otherwise.
        disjoint: Draw no image that was drawn for an earlier seed and the largest k.
        exclude: Text files or COCO files with names of images that are never drawn.

    Returns:
        The folders, including those that already held the same subset.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If an argument or a file is malformed, or no usable box is left.
        FileExistsError: If a folder holds another subset. Then none is written.
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
    name = name or source.name
    subsets: list[_Subset] = []
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
            record: dict[str, Any] = {"name": name, "k": k, "seed": seed}
            record |= _count(source, images_of, first, k)
            record |= {"disjoint_from": list(earlier), "disjoint_k": max(shots) if earlier else 0}
            folder = Path(out) / f"{name}_{k}shot_seed{seed}"
            subsets.append(_Subset(folder, source.files(set[str]().union(*first.values())), record))
        if disjoint:
            earlier.append(seed)
            taken.update(*drawn.values())
    for subset in subsets:
        _check_existing(subset)
    for subset in subsets:
        _write(subset)
    return [subset.folder for subset in subsets]


def draw_shots(images_of: Mapping[str, Collection[str]], k: int, seed: int) -> dict[str, list[str]]:
    """Draw k images per class, or all images of a class that has fewer.

    Args:
        images_of: Class → names of the images with a usable object of it.
        k: Images per class.
        seed: Seed of the order of the images.

    Returns:
        Class → images in the order drawn: the first j images per class are the subset for j
        images per class. No class has an image twice; an image is drawn for a second class
        only if all images of that class have been drawn.
    """
    order = sorted(images_of, key=lambda label: (len(images_of[label]), label))
    remaining = {label: _permuted(images_of[label], label, seed) for label in order}
    drawn: dict[str, list[str]] = {label: [] for label in images_of}
    taken: set[str] = set()
    for _ in range(k):
        for label in order:
            if images := remaining[label]:
                image = next((image for image in images if image not in taken), images[0])
                images.remove(image)
                drawn[label].append(image)
                taken.add(image)
    return drawn


class _Subset(NamedTuple):
    """Folder of a subset, its annotation files (name → text), and its record."""

    folder: Path
    files: dict[str, str]
    record: dict[str, Any]


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
    """Describe the source of a subset, and count the images and boxes of the subset."""
    counts = [source.boxes[image] for image in set[str]().union(*drawn.values())]
    return {
        "images": len(counts),
        "sources": list(source.paths),
        "split": source.split,
        "sha256": source.sha256,
        "excluded": dict(source.excluded),
        "short": {label: len(images) for label, images in drawn.items() if len(images) < k},
        "classes": {
            label: {
                "available": len(images_of[label]),
                "drawn_for": len(images),
                "images": sum(label in per_class for per_class in counts),
                "boxes": sum(per_class.get(label, 0) for per_class in counts),
            }
            for label, images in drawn.items()
        },
    }


def _write(subset: _Subset) -> None:
    """Write the missing files of a subset, the record last."""
    folder, files, record = subset
    if record["short"]:
        counts = ", ".join(
            f"{label} {drawn} of {record['classes'][label]['available']}"
            for label, drawn in record["short"].items()
        )
        warn(
            f"{folder}: {len(record['short'])} of {len(record['classes'])} classes got fewer than "
            f"{record['k']} images (drawn of available; an image is drawn for one class only): "
            f"{counts}"
        )
    for name, text in files.items():
        if not text:
            warn(
                f"{folder / name}: no image was drawn from there, and mmdet cannot read an empty "
                "list. Leave it out of the config, or use annotations.json"
            )
    for name, text in (files | {"record.json": json.dumps(record, indent=2) + "\n"}).items():
        if not (folder / name).exists():
            with whole_file(folder / name) as file:
                file.write(text)


def _check_existing(subset: _Subset) -> None:
    """Refuse a folder that holds another subset; accept an incomplete one, or a moved source."""
    folder, files, record = subset
    if not folder.exists():
        return
    cure = "Nothing was written. Take another name or another folder, or remove this one"
    try:
        texts = {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("record.json", *files)
            if (folder / name).exists()
        }
        existing = json.loads(texts.pop("record.json")) if "record.json" in texts else record
    except (ValueError, OSError) as error:
        raise FileExistsError(f"{folder}: cannot read what is there: {error}. {cure}") from error
    if isinstance(existing, dict):
        record = {**record, "sources": existing.get("sources")}
    difference = _difference(existing, record)
    if difference:
        raise FileExistsError(f"{folder} holds another draw: {difference}. {cure}")
    changed = [name for name, text in texts.items() if text != files[name]]
    if changed:
        raise FileExistsError(
            f"{folder} holds another draw: {changed[0]} has other images or boxes. {cure}"
        )


def _difference(existing: object, expected: object, path: str = "record.json") -> str:
    """Describe the first difference between two JSON values; ``''`` if they are equal."""
    if not (isinstance(existing, dict) and isinstance(expected, dict)):
        equal = existing == expected
        return "" if equal else f"{path} has {existing!r}, this draw {expected!r}"
    keys = [*expected, *(key for key in existing if key not in expected)]
    differences = (_difference(existing.get(k), expected.get(k), f"{path}: {k}") for k in keys)
    return next(filter(None, differences), "")
