"""Step 2 from an mmpretrain config: what ``tools/generate_pseudo_boxes.py`` and the hook share."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmpretrain.datasets.custom import find_folders
from mmpretrain.registry import DATASETS, MODELS
from torch import nn

from .categories import is_wordnet_id
from .classifier import CamClassifier
from .classifier_weights import load_classifier_weights
from .engine import Watcher, generate_pseudo_boxes
from .folders import ClassFolders, read_folder_names
from .settings import Execution, PseudoBoxSettings


def generate_from_config(
    config: Config,
    checkpoint: str,
    out_dir: str | os.PathLike[str],
    images: str | None = None,
    classes_file: str | None = None,
    execution: Execution | None = None,
    device: str | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Generate pseudo boxes with the classifier and the training set of an mmpretrain config.

    Args:
        config: Config with ``model``, ``train_dataloader.dataset`` (unless ``images`` is given)
            and, optionally, ``pseudo_boxes``: fields of :class:`PseudoBoxSettings`.
        checkpoint: Weights of the classifier: file or URL.
        out_dir: Folder to write.
        images: Folder with class folders that takes the place of the config's dataset.
        classes_file: Names of the class folders in label order, one a line, for ``images``.
        execution: How to carry it out.
        device: Where to compute. Defaults to CUDA if there is any, else the CPU.
        watcher: Looks at images as they are done.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If config, checkpoint, images and output folder do not fit together.
    """
    init_default_scope("mmpretrain")
    settings = settings_from_config(config)
    model, meta = build_classifier(config, checkpoint)
    if images is None:
        dataset = build_training_set(config)
    else:
        known = known_classes(config, meta)
        count = CamClassifier(model).num_classes
        dataset = build_class_folders(images, count, known, classes_file)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return generate_pseudo_boxes(model, dataset, out_dir, settings, checkpoint, execution, watcher)


def settings_from_config(config: Config) -> PseudoBoxSettings:
    """Read ``config.pseudo_boxes``; a field that is not there is the paper's.

    Raises:
        ValueError: If there is a field that :class:`PseudoBoxSettings` lacks, or a bad value.
    """
    fields = dict(config.get("pseudo_boxes", {}))
    unknown = fields.keys() - PseudoBoxSettings.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(
            f"pseudo_boxes: unknown settings {sorted(unknown)}; expected some of "
            f"{sorted(PseudoBoxSettings.__dataclass_fields__)}"
        )
    return PseudoBoxSettings(**fields)


def build_classifier(config: Config, checkpoint: str) -> tuple[nn.Module, dict[str, Any]]:
    """Build the classifier of a config as MMEngine's Runner does, with all its weights, on the CPU.

    A ``data_preprocessor`` beside ``model``, where mmpretrain's own configs have it, becomes the
    model's unless the model has one.

    Returns:
        The model and the checkpoint's ``meta``.

    Raises:
        ValueError: If the config has no model, or the checkpoint is not of this model.
    """
    if "model" not in config:
        raise ValueError(f"config {config.filename}: no `model` in it; expected a classifier's")
    model_config = copy.deepcopy(config.model)
    preprocessor = config.get("data_preprocessor")
    if preprocessor is not None:
        model_config.setdefault("data_preprocessor", copy.deepcopy(preprocessor))
    _drop_init(model_config)
    model = MODELS.build(model_config)
    return model, load_classifier_weights(model, checkpoint, str(config.filename))


def build_training_set(config: Config) -> Any:
    """Build the dataset of ``config.train_dataloader``.

    Raises:
        ValueError: If the config has none.
    """
    loader = config.get("train_dataloader") or {}
    if "dataset" not in loader:
        raise ValueError(
            f"config {config.filename}: no train_dataloader.dataset in it. Pseudo boxes are made "
            "for the training set: add it, or name a folder of class folders (--images)"
        )
    return DATASETS.build(loader["dataset"])


def known_classes(config: Config, meta: dict[str, Any]) -> list[str] | None:
    """Class names in label order, from the checkpoint or else from the config's dataset."""
    classes = (meta.get("dataset_meta") or {}).get("classes")
    dataset = (config.get("train_dataloader") or {}).get("dataset") or {}
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if classes is None:
        classes = (dataset.get("metainfo") or {}).get("classes", dataset.get("classes"))
    if classes is None and "type" in dataset:
        kind = dataset["type"]
        cls = DATASETS.get(kind) if isinstance(kind, str) else kind
        classes = getattr(cls, "METAINFO", {}).get("classes")
    if isinstance(classes, str):  # the name of a file, as mmpretrain takes it
        classes = list_from_file(classes)
    return None if classes is None else [str(name) for name in classes]


def build_class_folders(
    root: str, num_classes: int, known: list[str] | None, classes_file: str | None
) -> ClassFolders:
    """Build the dataset of class folders of one's own; see :class:`ClassFolders`.

    Args:
        root: Folder with one folder per class.
        num_classes: Number of classes of the classifier.
        known: Its class names, if any are known: folder names or readable ones.
        classes_file: File with the names of the folders in label order.
    """
    found = set(find_folders(root)[0]) if os.path.isdir(root) else set()
    readable = known if known is not None and len(known) == num_classes else None
    if classes_file is not None:
        return ClassFolders(root, num_classes, read_folder_names(classes_file), readable)
    if known is not None and found & set(known):
        return ClassFolders(root, num_classes, known)
    if readable is not None and len(found) == num_classes:
        if not all(is_wordnet_id(name) for name in found):
            raise ValueError(
                f"images: {root} holds {len(found)} class folders, as many as the classifier has "
                f"classes, but none is named like one: {min(found)!r}, … there, {readable[0]!r}, … "
                "here. Name the folders of all classes in label order, one a line, with --classes "
                "FILE"
            )
        print_log(
            f"{root}: class folders get labels in sorted order; the classifier's classes are "
            f"{readable[0]!r}, {readable[1 % num_classes]!r}, …",
            logger="current",
        )
    return ClassFolders(root, num_classes, readable_names=readable)


def _drop_init(config: Any) -> None:
    """Take out what would load other weights first (and, for an URL, download them)."""
    if isinstance(config, ConfigDict | dict):
        for key in ("init_cfg", "pretrained"):
            if config.get(key):
                config[key] = False if config[key] is True else None
        for value in config.values():
            _drop_init(value)
    elif isinstance(config, list | tuple):
        for value in config:
            _drop_init(value)
