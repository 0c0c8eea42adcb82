"""The identity of a run: what would have to be the same for the same boxes."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import cv2
import mmcv
import mmengine
import mmpretrain
import numpy as np
import pyarrow as pa
import torch

import dap

from .categories import coco_categories
from .classifier import CamClassifier
from .images import LabelledImages
from .settings import PseudoBoxSettings
from .writing import NamesDigest, default_shard_size


def describe_run(
    classifier: CamClassifier,
    images: LabelledImages,
    settings: PseudoBoxSettings,
    checkpoint: str | None,
    shard_size: int | None = None,
) -> dict[str, Any]:
    """Collect what a run is made of, as :class:`dap.pseudo_boxes.writing.StoreWriter` takes it.

    Args:
        classifier: Where the maps come from.
        images: The data set.
        settings: Settings of Step 2.
        checkpoint: Where the weights came from; no part of the identity.
        shard_size: Images per shard. Defaults to what suits their number.

    Raises:
        ValueError: If labels or class names do not fit the classifier.
    """
    return {
        "settings": settings.as_json(),
        "classifier": {
            "backbone": type(classifier.model.backbone).__name__,
            "num_classes": classifier.num_classes,
            "weights_sha256": classifier.weights_sha256(),
        },
        "image_list": {
            "count": len(images),
            "root": images.root,
            **_list_digests(images, classifier.num_classes),
        },
        "checkpoint": checkpoint,
        "versions": {
            module.__name__: module.__version__
            for module in (dap, torch, np, cv2, mmcv, mmengine, mmpretrain, pa)
        },
        "shard_size": shard_size or default_shard_size(len(images)),
        "categories": coco_categories(images, classifier.num_classes),
    }


def _list_digests(images: LabelledImages, num_classes: int) -> dict[str, str]:
    """Hash names with labels, and names alone, by which the finished store is checked."""
    both, names = hashlib.sha256(), NamesDigest()
    for entry in images.entries():
        labels = entry.labels.tolist()
        if labels and not 0 <= labels[0] <= labels[-1] < num_classes:
            raise ValueError(
                f"{entry.path} has label {labels}; the classifier has {num_classes} classes, 0 to "
                f"{num_classes - 1}. The data set does not belong to this classifier"
            )
        name = os.fsencode(entry.file_name)
        names.update(name, [len(name)])
        both.update(name + f"\t{labels}\n".encode())
    return {"list_sha256": both.hexdigest(), "names_sha256": names.hexdigest()}
