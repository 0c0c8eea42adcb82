"""Step 2 from an mmpretrain config, for ``tools/generate_pseudo_boxes.py`` and the hook."""

from __future__ import annotations

import copy
import inspect
import os
from functools import partial
from typing import Any

import torch
from mmengine import fileio
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS
from torch import nn

from dap.classifiers.choice import probe_image
from dap.classifiers.libraries import CLASS_NAMES
from dap.classifiers.weights import load_classifier_weights
from dap.devices import chosen_device
from dap.files import split_lines
from dap.images.categories import are_imagenet_names, imagenet_wordnet_ids, is_wordnet_id
from dap.images.class_folders import ClassFolders, find_class_folders
from dap.images.folder_labels import CURE, composed, read_folder_names, refuse_splits
from dap.runs.execution import Execution

from .classifier import CamClassifier
from .engine import Watcher, generate_pseudo_boxes
from .settings import PseudoBoxSettings

_WRAPPERS = (
    "RepeatDataset", "ClassBalancedDataset", "mmengine.RepeatDataset",
    "mmengine.ClassBalancedDataset", RepeatDataset, ClassBalancedDataset,
)  # fmt: skip


def generate_from_config(
    config: Config,
    checkpoint: str,
    out_dir: str | os.PathLike[str],
    images: str | None = None,
    classes_file: str | None = None,
    execution: Execution | None = None,
    device: str | None = None,
    watcher: Watcher | None = None,
    normalized: bool = True,
) -> dict[str, Any]:
    """Generate pseudo boxes with the classifier and the training set of an mmpretrain config.

    Args:
        config: Config with ``model``, ``train_dataloader.dataset`` (unless ``images`` is given)
            and, optionally, ``pseudo_boxes``: fields of :class:`PseudoBoxSettings`.
        checkpoint: File or URL of the weights of the classifier.
        out_dir: Folder to write.
        images: Folder with class folders, used in place of the dataset of the config.
        classes_file: File with the names of the class folders in label order, one per line, for
            ``images``.
        execution: How to carry out the run. Defaults to :class:`Execution`.
        device: Device to compute on. Defaults to CUDA if available, else the CPU.
        watcher: Receives each image of the first process when it is computed.
        normalized: Whether to refuse a classifier that does not normalise its images.

    Returns:
        The content of ``summary.json``.

    Raises:
        ValueError: If config, checkpoint, images and output folder do not fit together.
    """
    init_default_scope("mmpretrain")
    settings = settings_from_config(config)
    place = chosen_device(device)
    model, meta = build_classifier(config, checkpoint)
    if normalized:
        require_normalization(model, f"config {config.filename}")
    if images is None:
        dataset = build_training_set(config)
    else:
        known = known_classes(config, meta)
        count = CamClassifier(model, settings.map_method).num_classes
        dataset = build_class_folders(images, count, known, classes_file)
    model.to(place)
    return generate_pseudo_boxes(model, dataset, out_dir, settings, checkpoint, execution, watcher)


def settings_from_config(config: Config) -> PseudoBoxSettings:
    """Read ``config.pseudo_boxes``; fields that it lacks have their defaults.

    Raises:
        ValueError: If :class:`PseudoBoxSettings` has no such field, or a value is out of range.
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
    """Build the classifier of a config as MMEngine's Runner does, with its weights, on the CPU.

    A ``data_preprocessor`` at the top level of the config, as in the configs of mmpretrain, is used
    if ``model`` has none.

    Returns:
        The model and the ``meta`` of the checkpoint.

    Raises:
        ValueError: If the config has no model, or the checkpoint is not of this model.
    """
    if "model" not in config:
        raise ValueError(f"config {config.filename}: no `model` in it; expected a classifier's")
    model_config = copy.deepcopy(config.model)
    preprocessor = config.get("data_preprocessor")
    if preprocessor is not None:
        model_config.setdefault("data_preprocessor", copy.deepcopy(preprocessor))
    drop_init(model_config)
    model = MODELS.build(model_config)
    # The network of another library is the attribute `model`, with the names of that library.
    network = model if hasattr(model, "backbone") else getattr(model, "model", model)
    return model, load_classifier_weights(network, checkpoint, str(config.filename))


def require_normalization(model: nn.Module, source: str) -> None:
    """Refuse a classifier whose data preprocessor does not normalise images.

    An image of random pixels must change when it is normalised, apart from the order of its
    channels.

    Args:
        model: An mmpretrain classifier.
        source: Origin of the classifier, for the message.

    Raises:
        ValueError: If the classifier does not normalise images.
    """
    pixels = probe_image().to(next(model.parameters()).device)
    normalized = CamClassifier(model).normalize(pixels)
    if torch.equal(normalized, pixels.to(normalized)) or torch.equal(
        normalized, pixels.flip(1).to(normalized)
    ):
        raise ValueError(
            f"{source}: its images are not normalised, so the classifier would get pixels of 0 to "
            "255. Add data_preprocessor=dict(mean=[…], std=[…], to_rgb=…), as in its training, "
            "beside `model` or in it. If it was trained on such pixels, pass --no-normalization "
            "(PseudoBoxHook: normalized=False)"
        )


def build_training_set(config: Config) -> Any:
    """Build the dataset of ``config.train_dataloader``; its images are not listed yet.

    Raises:
        ValueError: If the config has none.
    """
    loader = config.get("train_dataloader") or {}
    if "dataset" not in loader:
        raise ValueError(
            f"config {config.filename}: no train_dataloader.dataset in it. Pseudo boxes are made "
            "for the training set: add it, or name a folder of class folders (--images)"
        )
    dataset = loader["dataset"]
    while dataset.get("type") in _WRAPPERS:  # each image is needed once
        dataset = dataset["dataset"]
    cls = _dataset_class(dataset)
    if isinstance(cls, type) and issubclass(cls, BaseDataset):
        arguments = inspect.signature(cls).parameters.values()
        if any(each.name == "lazy_init" or each.kind is each.VAR_KEYWORD for each in arguments):
            dataset = {**dataset, "lazy_init": True}
    return DATASETS.build(dataset)


def known_classes(config: Config, meta: dict[str, Any]) -> list[str] | None:
    """Return class names in label order, from the checkpoint or else from the config."""
    classes = (meta.get("dataset_meta") or {}).get("classes", config.get(CLASS_NAMES))
    dataset = (config.get("train_dataloader") or {}).get("dataset") or {}
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    if classes is None:
        classes = (dataset.get("metainfo") or {}).get("classes", dataset.get("classes"))
    if classes is None:
        classes = getattr(_dataset_class(dataset), "METAINFO", {}).get("classes")
    if isinstance(classes, str):  # the name of a file, as mmpretrain accepts it
        classes = split_lines(fileio.get(os.path.expanduser(classes)), classes)
    return None if classes is None else [str(name) for name in classes]


def _dataset_class(dataset: dict[str, Any]) -> Any:
    kind = dataset.get("type")
    return DATASETS.get(kind) if isinstance(kind, str) else kind


def build_class_folders(
    root: str, num_classes: int, known: list[str] | None, classes_file: str | None
) -> ClassFolders:
    """Build the dataset of the user's class folders, see :class:`ClassFolders`.

    Args:
        root: Folder with one folder per class.
        num_classes: Number of classes of the classifier.
        known: Class names of the classifier, folder names or readable ones, if known.
        classes_file: File with the names of the folders in label order.

    Raises:
        ValueError: If the folders do not match the classes, or could match them in several ways.
    """
    folders = find_class_folders(root)
    build = partial(ClassFolders, root, num_classes, lazy_init=True)
    readable = known if known is not None and len(known) == num_classes else None
    if classes_file is not None:
        return build(read_folder_names(classes_file, folders), readable)
    refuse_splits(root, folders, known or ())
    if known is not None and not {*map(composed, folders)}.isdisjoint(map(composed, known)):
        return build(known)
    if readable is None:
        return build()
    if are_imagenet_names(readable) and set(folders).issubset(imagenet_wordnet_ids()):
        return build(imagenet_wordnet_ids(), readable)
    if len(folders) == num_classes and not all(map(is_wordnet_id, folders)):
        raise ValueError(
            f"images: {root} holds {len(folders)} class folders, as many as the classifier has "
            f"classes, but none has the name of a class: the folders are {folders[0]!r}, …, the "
            f"classes {readable[0]!r}, …. {CURE}"
        )
    return build(readable_names=readable)


def drop_init(config: Any) -> None:
    """Remove the settings of a model config that would load, or even download, other weights."""
    if isinstance(config, ConfigDict | dict):
        for key in ("init_cfg", "pretrained"):
            if config.get(key):
                config[key] = False if config[key] is True else None
        for value in config.values():
            drop_init(value)
    elif isinstance(config, list | tuple):
        for value in config:
            drop_init(value)
