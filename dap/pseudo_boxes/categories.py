"""Names of the categories that the COCO file carries."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from .images import LabelledImages

_WORDNET_ID = re.compile(r"n\d{8}")


def is_wordnet_id(name: str) -> bool:
    """Whether a name is a WordNet id, as ImageNet's class folders have it: ``n01440764``."""
    return _WORDNET_ID.fullmatch(name) is not None


def coco_categories(images: LabelledImages, num_classes: int) -> list[dict[str, Any]]:
    """Describe the classes of a data set as COCO categories, label order.

    The name is the WordNet id where every class has one (from its folder), since mmdet finds
    categories by name and readable names repeat ('crane' stands twice among ImageNet's 1000);
    the readable name stands beside it. Elsewhere the name is the class's own, a repeated one
    with its label behind it.

    Args:
        images: The data set.
        num_classes: Number of classes of the classifier.

    Returns:
        ``num_classes`` dicts with ``id`` (label + 1), ``name`` and ``readable_name``.

    Raises:
        ValueError: If the data set names another number of classes.
    """
    readable = _class_names(images, num_classes)
    names = _wordnet_ids(images, num_classes) or _made_unique(readable)
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


def _wordnet_ids(images: LabelledImages, num_classes: int) -> list[str] | None:
    """Find the WordNet id of each label in the names of the folders; None if one has none."""
    found: dict[int, str] = {}
    folders = getattr(images.dataset, "folder_to_idx", None)
    if folders:
        found = {label: folder for folder, label in folders.items()}
    else:
        for entry in images.entries():
            for part in entry.file_name.split("/")[:-1]:
                for label in entry.labels if is_wordnet_id(part) else ():
                    found.setdefault(int(label), part)
            if len(found) == num_classes:
                break
    names = [found.get(label, "") for label in range(num_classes)]
    valid = all(is_wordnet_id(name) for name in names)
    return names if valid and len(set(names)) == num_classes else None


def _made_unique(names: list[str]) -> list[str]:
    repeats = Counter(names)
    return [f"{name} ({i})" if repeats[name] > 1 else name for i, name in enumerate(names)]
