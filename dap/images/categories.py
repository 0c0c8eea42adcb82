"""Names of the categories in the COCO file."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES, IMAGENET_SIMPLE_CATEGORIES

from dap.files import read_lines

from .labelled_images import LabelledImages

_WORDNET_ID = re.compile(r"n\d{8}")


def is_wordnet_id(name: str) -> bool:
    """Whether a name is a WordNet id such as ``n01440764``, as in ImageNet's class folders."""
    return _WORDNET_ID.fullmatch(name) is not None


@cache
def imagenet_wordnet_ids() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's 1000 classes in label order, which is sorted order."""
    return tuple(read_lines(Path(__file__).with_name("imagenet_1k_wordnet_ids.txt")))


def are_imagenet_names(names: Sequence[str] | None) -> bool:
    """Whether class names are those of ImageNet-1k in mmpretrain, in label order."""
    lists = (IMAGENET_CATEGORIES, IMAGENET_SIMPLE_CATEGORIES)
    return names is not None and tuple(names) in lists


def coco_categories(images: LabelledImages, num_classes: int) -> list[dict[str, Any]]:
    """Describe the classes of a data set as COCO categories, in label order.

    The name of a category is the WordNet id of the class if it is known, because mmdet looks up
    categories by name and readable names repeat ('crane' occurs twice in ImageNet-1k). Otherwise it
    is the name of the class, followed by the label if the name repeats. The WordNet ids come from
    the first of these sources that applies:

    - If the dataset knows the folders of all classes: the names of the folders, if all are WordNet
      ids.
    - If the classes are those of ImageNet-1k: its list of ids, if the paths of images agree.
    - Otherwise the paths of the images of each class. A class without images, or without an id in
      its paths, keeps its name. If ids and labels are not one to one, all classes do.

    The names of classes with images do not depend on which other classes have images.

    Args:
        images: The data set.
        num_classes: Number of classes of the classifier.

    Returns:
        ``num_classes`` dicts with ``id`` (label + 1), ``name`` and ``readable_name``.

    Raises:
        ValueError: If the number of classes of the data set is not ``num_classes``.
    """
    readable = _class_names(images, num_classes)
    ids = _wordnet_ids(images, readable)
    names = [ids.get(label, name) for label, name in enumerate(_made_unique(readable))]
    return [
        {"id": label + 1, "name": names[label], "readable_name": readable[label]}
        for label in range(num_classes)
    ]


def _class_names(images: LabelledImages, num_classes: int) -> list[str]:
    classes = images.dataset.metainfo.get("classes")
    if classes is None:
        return [f"class {label}" for label in range(num_classes)]
    if len(classes) != num_classes:
        raise ValueError(
            f"dataset {type(images.dataset).__name__} in {images.root!r} has {len(classes)} "
            f"classes, the classifier {num_classes}. Labels would be mixed up: use the data the "
            "classifier was trained on, or, for class folders of your own, name the folders of all "
            "its classes in label order (--classes FILE)"
        )
    return [str(name) for name in classes]


def _wordnet_ids(images: LabelledImages, names: Sequence[str]) -> dict[int, str]:
    """Find the WordNet ids of classes by label, see :func:`coco_categories`."""
    folders = getattr(images.dataset, "folder_to_idx", None)
    if folders and len(folders) == len(names):
        all_ids = all(map(is_wordnet_id, folders))
        return {label: folder for folder, label in folders.items()} if all_ids else {}
    pairs = _ids_in_paths(images)
    if are_imagenet_names(names):
        table = imagenet_wordnet_ids()
        other = sorted(
            (label, name) for label, name in pairs if table[label : label + 1] != (name,)
        )
        if not other:
            return dict(enumerate(table))
        _warn(
            images,
            f"images of label {other[0][0]} lie in a folder {other[0][1]}, which in ImageNet-1k is "
            f"another class, as {len(other)} labels have it. Check the order of the labels",
        )
    labels, ids = Counter(label for label, _ in pairs), Counter(name for _, name in pairs)
    repeated = sorted(pair for pair in pairs if max(labels[pair[0]], ids[pair[1]]) > 1)
    if repeated:
        _warn(
            images,
            "WordNet ids in the paths of images and labels are not one to one, such as "
            f"{repeated[0][1]} of label {repeated[0][0]}. The categories are named like the "
            "classes instead",
        )
        return {}
    if 0 < len(pairs) < len(names):
        without = next(label for label in range(len(names)) if label not in labels)
        _warn(
            images,
            f"no image tells the WordNet id of {len(names) - len(pairs)} of {len(names)} classes, "
            f"such as label {without}. Their categories are named like the classes, such as "
            f"{names[without]!r}, the others by WordNet id",
        )
    return dict(pairs)


def _ids_in_paths(images: LabelledImages) -> set[tuple[int, str]]:
    """Collect pairs of label and last WordNet id in the path, of images with only one label."""
    pairs = set[tuple[int, str]]()
    last: tuple[str, int] | None = None  # folder and label of the image before
    for entry in images.entries():
        if len(entry.labels) != 1:
            continue
        folder, label = entry.file_name.rpartition("/")[0], int(entry.labels[0])
        if (folder, label) != last:  # most images follow one of the same class
            last = folder, label
            ids = list(filter(is_wordnet_id, folder.split("/")))
            pairs.update((label, wordnet_id) for wordnet_id in ids[-1:])
    return pairs


def _warn(images: LabelledImages, text: str) -> None:
    name = type(images.dataset).__name__
    print_log(f"{name} in {images.root!r}: {text}", "current", logging.WARNING)


def _made_unique(names: list[str]) -> list[str]:
    repeats = Counter(names)
    return [f"{name} ({i})" if repeats[name] > 1 else name for i, name in enumerate(names)]
