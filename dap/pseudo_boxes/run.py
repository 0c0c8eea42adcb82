"""The identity of a run: what would have to be the same for the same boxes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine
import mmpretrain
import numpy as np
import torch

import dap

from .categories import coco_categories
from .classifier import CamClassifier
from .coco_reader import CocoReader
from .images import LabelledImages
from .settings import PseudoBoxSettings


@dataclass(frozen=True)
class PseudoBoxRun:
    """What a run is made of.

    Attributes:
        settings: :class:`PseudoBoxSettings` as JSON.
        classifier: Type of the backbone, number of classes, hash of the weights.
        image_list: Number of images, their root, hash of file names and labels.
        checkpoint: Where the weights came from; no part of the identity.
        categories: COCO categories.
    """

    settings: dict[str, Any]
    classifier: dict[str, Any]
    image_list: dict[str, Any]
    checkpoint: str | None
    categories: list[dict[str, Any]]

    @classmethod
    def describe(
        cls,
        classifier: CamClassifier,
        images: LabelledImages,
        settings: PseudoBoxSettings,
        checkpoint: str | None,
    ) -> PseudoBoxRun:
        """Collect what the run is made of.

        Raises:
            ValueError: If labels or class names do not fit the classifier.
        """
        categories = coco_categories(images, classifier.num_classes)
        return cls(
            settings=settings.as_json(),
            classifier={
                "backbone": type(classifier.model.backbone).__name__,
                "num_classes": classifier.num_classes,
                "weights_sha256": classifier.weights_sha256(),
            },
            image_list={
                "count": len(images),
                "root": images.root,
                "list_sha256": _list_sha256(images, classifier.num_classes),
            },
            checkpoint=checkpoint,
            categories=categories,
        )

    def as_json(self) -> dict[str, Any]:
        """The description that is written, with the versions of what computed it."""
        described = asdict(self)
        del described["categories"]
        described["versions"] = {
            module.__name__: module.__version__
            for module in (dap, torch, np, cv2, mmcv, mmengine, mmpretrain)
        }
        return described


def identity(described: dict[str, Any]) -> dict[str, Any]:
    """What must be equal for the same boxes, flat: ``{'settings.rule': 'paper', …}``.

    Args:
        described: The content of a summary, or :meth:`PseudoBoxRun.as_json`.
    """
    flat = {
        f"{part}.{key}": value
        for part in ("settings", "classifier", "image_list")
        for key, value in described.get(part, {}).items()
    }
    flat.pop("image_list.root", None)
    return flat


def coco_info(described: dict[str, Any]) -> dict[str, Any]:
    """What the COCO file says of the run it is of: the settings and hashes that decide it."""
    return {"description": "DAP pseudo boxes", **identity(described)}


def finished_summary(out: Path, described: dict[str, Any]) -> dict[str, Any] | None:
    """Read the summary of a finished run of the same identity.

    Args:
        out: The folder.
        described: What the run is made of, as :meth:`PseudoBoxRun.as_json`.

    Returns:
        The summary, or None if the folder holds no finished run: nothing, or the annotations of
        this same run, which was killed before it wrote its summary and may write both again.

    Raises:
        ValueError: If the folder holds another run, or annotations of unknown origin.
    """
    annotations, summary_file = out / "annotations.json", out / "summary.json"
    if not summary_file.exists():
        if annotations.exists() and not _is_of(annotations, described):
            raise ValueError(
                f"{annotations} exists without a summary.json: it is not of a finished run, nor "
                "of this one. It is left as it is; choose another output folder or move it away"
            )
        return None
    try:
        summary: dict[str, Any] = json.loads(summary_file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{summary_file} is not what a run writes ({error}). It is left as it is; choose "
            "another output folder or move it away"
        ) from error
    earlier, now = identity(summary), identity(described)
    differences = [
        f"{key}: {earlier.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(earlier.keys() | now.keys())
        if earlier.get(key) != now.get(key)
    ]
    if differences:
        raise ValueError(
            f"{out} holds another run, which is left as it is ({'; '.join(differences)}). Choose "
            "another output folder, or remove this one"
        )
    if not annotations.exists():
        raise ValueError(f"{annotations} is gone, its summary.json is there: remove {out}")
    return summary


def _is_of(annotations: Path, described: dict[str, Any]) -> bool:
    """Whether a COCO file says that it is of this run."""
    with open(annotations, encoding="utf-8") as file:
        try:
            return CocoReader(file).info == coco_info(described)
        except ValueError:  # not laid out as ours are
            return False


def _list_sha256(images: LabelledImages, num_classes: int) -> str:
    digest = hashlib.sha256()
    for entry in images.entries():
        labels = entry.labels.tolist()
        if labels and not 0 <= labels[0] <= labels[-1] < num_classes:
            raise ValueError(
                f"{entry.path} has label {labels}; the classifier has {num_classes} classes, 0 to "
                f"{num_classes - 1}. The data set does not belong to this classifier"
            )
        digest.update(f"{entry.file_name}\t{labels}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
