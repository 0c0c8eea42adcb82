"""Description of a run: everything that decides its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import mmengine
import mmpretrain
import numpy as np
import pyarrow as pa
import torch

import dap
from dap.images.categories import coco_categories
from dap.images.labelled_images import LabelledImages
from dap.runs.execution import Execution
from dap.store.writer import default_shard_size

from .classifier import CamClassifier
from .settings import PseudoBoxSettings

# Incremented when the same classifier and images give other boxes than before.
ALGORITHM = 4


def describe_process(
    classifier: CamClassifier, settings: PseudoBoxSettings, execution: Execution
) -> dict[str, Any]:
    """Describe a run without its images; all its processes must agree on this.

    Args:
        classifier: The classifier.
        settings: Settings of Step 2.
        execution: Whether TF32 is allowed.
    """
    device = classifier.device.type
    return {
        "settings": settings.as_json(),
        "classifier": {
            "backbone": classifier.architecture,
            "map_method": classifier.map_method,
            "maps": classifier.map_description,
            "num_classes": classifier.num_classes,
            "weights_sha256": classifier.weights_sha256(),
        },
        "computation": {
            "algorithm": ALGORITHM,
            "device": device,
            "tf32": device == "cuda" and execution.tf32,
        },
        "versions": {
            module.__name__: module.__version__
            for module in (dap, torch, np, cv2, mmcv, mmengine, mmpretrain, pa)
        },
    }


def describe_run(
    process: Mapping[str, Any],
    images: LabelledImages,
    checkpoint: str | None,
    shard_size: int | None = None,
) -> dict[str, Any]:
    """Describe a run as :class:`dap.store.writer.StoreWriter` takes it.

    Args:
        process: Result of :func:`describe_process`.
        images: The data set.
        checkpoint: Origin of the weights, which the identity of the run does not include.
        shard_size: Images per shard. Defaults to a size that depends on the number of images.

    Raises:
        ValueError: If labels or class names do not fit the classifier.
    """
    num_classes = process["classifier"]["num_classes"]
    outside = images.list.first_outside(num_classes)
    if outside is not None:
        entry = images.entry(outside)
        raise ValueError(
            f"{entry.path} has label {entry.labels.tolist()}; the classifier has {num_classes} "
            f"classes, 0 to {num_classes - 1}. The data set does not belong to this classifier"
        )
    return {
        "settings": process["settings"],
        "classifier": process["classifier"],
        "computation": process["computation"],
        "image_list": {"count": len(images), "root": images.root, **images.list.digests()},
        "checkpoint": checkpoint,
        "versions": process["versions"],
        "shard_size": shard_size or default_shard_size(len(images)),
        "categories": coco_categories(images, num_classes),
    }
