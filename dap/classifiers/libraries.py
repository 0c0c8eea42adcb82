"""Configs of classifiers of timm, torchvision and transformers, by name."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from torch import Tensor

from dap.checkpoint import load_weights

CLASS_NAMES = "classifier_classes"
"""Config key for the names of the classifier's classes in label order."""

# Arguments of timm's networks that enable images of any size; not all networks have them.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},
    {"strict_img_size": False, "dynamic_mask": True},
)
_IMAGENET = 1000


def classifier_config(source: str, checkpoint: str | None) -> Config:
    """Read an mmpretrain config, or create one for a classifier of another library.

    Other libraries are given as ``timm:NAME``, for example ``timm:convnext_tiny.fb_in1k``;
    ``torchvision:NAME``, for example ``torchvision:resnet50``; or ``huggingface:FOLDER``, a folder
    with the ``config.json`` and ``preprocessor_config.json`` that ``save_pretrained`` writes.
    Architecture, normalisation and class names come from the library, the number of classes from
    the checkpoint. Nothing is downloaded, except a checkpoint that is given as a URL.

    Args:
        source: Config file, or library and name.
        checkpoint: Weights of the classifier: file or URL. Without it, the number of classes is
            that of ImageNet or of the network's pre-training.

    Returns:
        A config with ``model``, ``data_preprocessor`` and, if known, the class names.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If the library is not installed, or has no such classifier.
    """
    library, colon, name = source.partition(":")
    if not colon or library not in _LIBRARIES or os.path.exists(source):
        if not os.path.isfile(source):
            others = ", ".join(f"{each}:NAME" for each in _LIBRARIES)
            raise FileNotFoundError(
                f"no config at {source}; expected an mmpretrain config file, or one of {others}. "
                f"Check the path; it is relative to the working directory ({os.getcwd()})"
            )
        return Config.fromfile(source)
    package, read = _LIBRARIES[library]
    if find_spec(package) is None:
        raise ValueError(
            f"{source}: the classifiers of {library} need the package {package}, which is not "
            f"installed. Install it: pip install {package}"
        )
    model, mean, std, names = read(name, {} if checkpoint is None else load_weights(checkpoint)[0])
    content: dict[str, Any] = {
        "default_scope": "mmpretrain",
        "model": model,
        # DAP reads pixels as BGR in [0, 255]; these libraries expect RGB in [0, 1].
        "data_preprocessor": {
            "mean": [255 * value for value in mean],
            "std": [255 * value for value in std],
            "to_rgb": True,
        },
    }
    if names is not None:
        content[CLASS_NAMES] = list(names)
    # With cfg_text, MMEngine does not open the file.
    return Config(content, cfg_text=f"# {source}\n", filename=source)


Weights = Mapping[str, Tensor]
Parts = tuple[dict[str, Any], Sequence[float], Sequence[float], Sequence[str] | None]


def _timm(name: str, weights: Weights) -> Parts:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm:{name}: {_no_such(name, timm.list_models())}")
    config: Any = timm.models.get_pretrained_cfg(name)
    layers = config.classifier if isinstance(config.classifier, tuple) else (config.classifier,)
    classes = _count_classes(weights, layers, config.num_classes)
    if classes == 0:
        raise ValueError(
            f"timm:{name}: it is a backbone without classes, and so is the checkpoint. Pass the "
            "checkpoint of a classifier with this backbone"
        )
    model = {"type": "TimmClassifier", "model_name": name, "pretrained": False,
             "num_classes": classes, **_any_size(name)}  # fmt: skip
    return model, config.mean, config.std, _timm_classes(classes)


def _any_size(name: str) -> dict[str, Any]:
    """Arguments that let a network of timm accept images of any size; empty if it has none."""
    import timm

    for arguments in _ANY_SIZE:
        try:
            with torch.device("meta"):
                timm.create_model(name, pretrained=False, **arguments)
        except TypeError:  # the network has no such argument
            continue
        except (RuntimeError, NotImplementedError):
            pass  # it has the argument, but needs values of tensors, which the meta device lacks
        return arguments
    return {}


def _timm_classes(count: int) -> Sequence[str] | None:
    """Names of ImageNet's classes, or WordNet ids of its larger sets, by the number of classes."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if count == _IMAGENET:
        return list(IMAGENET_CATEGORIES)
    subset = infer_imagenet_subset({"num_classes": count})
    return None if subset is None else list(ImageNetInfo(subset).label_names())


def _torchvision(name: str, weights: Weights) -> Parts:
    from torchvision import models

    networks = models.list_models(module=models)
    if name not in networks:
        raise ValueError(f"torchvision:{name}: {_no_such(name, networks)}")
    preset = models.get_model_weights(name).DEFAULT.transforms()
    classes = _count_classes(weights, ("fc", "classifier", "head", "heads.head"), _IMAGENET)
    model = {"type": "dap.TorchvisionClassifier", "model_name": name, "num_classes": classes}
    names = list(IMAGENET_CATEGORIES) if classes == _IMAGENET else None
    return model, preset.mean, preset.std, names


def _huggingface(folder: str, _: Weights) -> Parts:
    described = _read_json(folder, "config.json")
    images = _read_json(folder, "preprocessor_config.json")
    missing = [key for key in ("image_mean", "image_std") if key not in images]
    if missing:
        raise ValueError(
            f"{Path(folder, 'preprocessor_config.json')}: no {missing[0]} in it; expected the mean "
            "and the standard deviation of the images, as save_pretrained of an image processor "
            "writes them"
        )
    labels = {int(key): str(name) for key, name in (described.get("id2label") or {}).items()}
    names = [labels[key] for key in sorted(labels)] or None
    model = {"type": "HuggingFaceClassifier", "model_name": folder}
    return model, images["image_mean"], images["image_std"], names


def _read_json(folder: str, name: str) -> dict[str, Any]:
    path = Path(folder, name)
    if not path.is_file():
        raise FileNotFoundError(
            f"huggingface:{folder}: there is no {path}. Nothing is downloaded: pass a folder that "
            "save_pretrained of the model and of its image processor have written"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _count_classes(weights: Mapping[str, Tensor], layers: Sequence[str], default: int) -> int:
    """Number of rows of the last linear layer in a checkpoint; prefixes of names are ignored."""
    for layer in layers:
        # torchvision's classifier may be a sequence of layers, of which the last one is linear.
        for name in reversed(list(weights)):
            module = f".{name}".rpartition(".")[0].rstrip("0123456789").rstrip(".")
            if module.endswith(f".{layer}") and name.endswith(".weight"):
                return len(weights[name])
    return default


def _no_such(name: str, names: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name.partition(".")[0], names, n=5)
    similar = f", similar ones are {', '.join(matches)}" if matches else ""
    return f"there is no such classifier in the installed version{similar}"


_LIBRARIES: dict[str, tuple[str, Callable[[str, Weights], Parts]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "huggingface": ("transformers", _huggingface),
}
