"""Commands that make the annotation files of data sets."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from dap.datasets.voc_files import VOC_CLASSES
from dap.jobs.jobs import tool_command
from dap.jobs.launcher import option_words
from dap.jobs.shipped import from_here

from .config_tree import ConfigTree
from .schedule import SCHEDULES, batch_options, k_shot_options

DRAWN = re.compile(r"(?:(?P<out>.*)/)?(?P<name>[^/]+)_(?P<k>\d+)shot_seed(?P<seed>\d+)/[^/]+")
# Names that tools/few_shot.py gives the paper's sets → config that fine-tunes on them.
K_SHOT_CONFIGS = {
    "voc0712": "faster-rcnn_r50-dap-in1k_fpn_voc-kshot",
    "coco": "faster-rcnn_r50-dap-in1k_fpn_coco-kshot",
}
SOURCE = "few_shot_source"  # variable of a config: dict(voc=[folder, …]) or dict(coco=file)


class Preparation(NamedTuple):
    """A command that makes an annotation file.

    Attributes:
        name: Name of the job: the folder or file that it makes.
        command: Program and arguments.
        inputs: Files and folders that it reads.
    """

    name: str
    command: list[str]
    inputs: tuple[str, ...]


def full_path(dataset: Mapping[str, Any], key: str = "ann_file") -> str:
    """Path of a data set's annotation file, or, for ``key='img'``, of its folder of images.

    It includes ``data_root``. It is empty if the data set has no such file or folder.
    """
    prefix = dataset.get("data_prefix")
    if key == "img":
        value = prefix.get("img", "") if isinstance(prefix, Mapping) else prefix or ""
    else:
        value = dataset.get(key) or ""
    return os.path.join(dataset.get("data_root") or "", value) if value else ""


def below_root(path: str, dataset: Mapping[str, Any]) -> str:
    """Value of ``ann_file`` for a path: relative to ``data_root`` if below it, else absolute."""
    root = dataset.get("data_root") or ""
    start = root.rstrip("/") + "/"
    if root and path.startswith(start):
        return path.removeprefix(start)
    return os.path.abspath(path) if root else path


def of_seed(path: str, seed: int | None) -> str:
    """Replace the seed in the path of a k-shot set; other paths are returned unchanged."""
    drawn = DRAWN.fullmatch(path)
    if drawn is None or seed is None:
        return path
    return path[: drawn.start("seed")] + str(seed) + path[drawn.end("seed") :]


def k_shot_command(folder: Path, configs: ConfigTree) -> str | None:
    """The command that trains the DAP config on a k-shot set of the paper, on one GPU.

    Its options and work directory are those of ``tools/reproduce.py``. If the config has no
    schedule for k, its training length is not changed. The image folders are those of the config.

    Args:
        folder: The set: ``…/voc0712_10shot_seed0``.
        configs: Tree that contains the config.

    Returns:
        A shell command; None for a set with another name, which needs a separate config.
    """
    drawn = DRAWN.fullmatch(f"{folder}/annotations.json")
    if drawn is None or drawn["name"] not in K_SHOT_CONFIGS:
        return None
    name, shots = K_SHOT_CONFIGS[drawn["name"]], f"{drawn['k']}shot"
    config = configs.load(name)
    options = k_shot_options(config, shots) if shots in config[SCHEDULES] else {}
    options |= {
        "train_dataloader.dataset.ann_file": drawn[0],
        "train_dataloader.batch_size": batch_options(config, 1, None)["total_batch"],
        "randomness.seed": drawn["seed"],
    }
    work_dir = f"work_dirs/{name.replace('kshot', shots)}_seed{drawn['seed']}"
    start = ["mim", "train", "mmdet", str(from_here(configs.path(name))), "--work-dir", work_dir]
    return shlex.join([*start, *option_words(options)])


def preparation(path: str, config: Config, dataset: Mapping[str, Any]) -> Preparation | None:
    """Find the command that makes an annotation file of a data set.

    Args:
        path: Path of the file.
        config: The config that has the data set.
        dataset: The data set.

    Returns:
        The command that draws a k-shot set ``…/NAME_{k}shot_seed{s}/annotations.json``. Its source
        is the config's variable ``few_shot_source`` or, for the names ``voc0712`` and ``coco``, is
        derived from the image folder. For images in ILSVRC's folders (``Data/DET/…``), the command
        that converts XML files. None for other files, which must exist, and unknown sources.
    """
    drawn = DRAWN.fullmatch(path)
    if drawn is not None:
        source = _few_shot_source(drawn["name"], config, full_path(dataset, "img"))
        if source is None:
            return None
        options = ("--shots", drawn["k"], "--seeds", drawn["seed"], "--name", drawn["name"])
        command = tool_command("few_shot", *source, *options, "--out", drawn["out"] or ".")
        return Preparation(str(Path(path).parent), command, tuple(source[1:]))
    images = Path(full_path(dataset, "img"))
    if images.parts[-3:-1] != ("Data", "DET"):
        return None
    annotations = Path(*images.parts[:-3], "Annotations", *images.parts[-2:])
    folders = (str(annotations), str(images))
    return Preparation(path, tool_command("xml_to_coco", *folders, "--out", path), folders)


def unlabelled(path: str, dataset: Mapping[str, Any]) -> Preparation:
    """Find the command that lists the images of a data set without their labels.

    Args:
        path: File to write the list to.
        dataset: The data set. If the folder of its images is a ``JPEGImages``, images of VOC's
            split ``trainval`` are listed, else all images of the folder.

    Raises:
        ValueError: If its classes are not VOC's. The list must then be made by hand.
    """
    images = Path(full_path(dataset, "img"))
    classes = tuple((dataset.get("metainfo") or {}).get("classes") or VOC_CLASSES)
    if classes != tuple(VOC_CLASSES):
        raise ValueError(
            f"{path}: expected VOC's classes in the config of the predictions, found {classes}. "
            "Make the list with tools/unlabelled_images.py --classes, outside work_dirs, and set it"
            " as ann_file in that config"
        )
    arguments, source = [str(images)], str(images)
    if images.name == "JPEGImages":
        arguments = [str(images.parent), "--split", "trainval"]
        source = str(images.parent / "ImageSets" / "Main" / "trainval.txt")
    command = tool_command("unlabelled_images", *arguments, "--out", path)
    return Preparation(Path(path).parent.name, command, (source,))


def data_files(config: Config, loaders: Iterable[str]) -> tuple[str, ...]:
    """List the annotation files and image folders that the data sets of some loaders read."""
    paths = [path for loader in loaders for path in _data_files(config.get(loader) or {})]
    return tuple(dict.fromkeys(paths))


def _data_files(value: Any) -> Iterable[str]:
    """Yield the files and folders of nested data sets."""
    if isinstance(value, Mapping):
        if "type" in value and ("ann_file" in value or "data_root" in value):
            root = Path(value.get("data_root") or "")
            prefix = value.get("data_prefix") or value.get("split") or ""
            prefixes = prefix.values() if isinstance(prefix, Mapping) else [prefix]
            names = [value.get("ann_file"), *prefixes]
            yield from (str(root / name) for name in names if name)
        for child in value.values():
            yield from _data_files(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _data_files(child)


def _few_shot_source(name: str, config: Config, images: str) -> list[str] | None:
    """Arguments of tools/few_shot.py for the source; None if it is not known."""
    source = config.get(SOURCE)
    if source:
        if set(source) not in ({"voc"}, {"coco"}):
            raise ValueError(
                f"{config.filename}: {SOURCE}: expected dict(voc=[folder, …]) or dict(coco=file), "
                f"found {dict(source)}"
            )
        voc, coco = source.get("voc") or (), source.get("coco")
        return ["--coco", coco] if coco else ["--voc", *([voc] if isinstance(voc, str) else voc)]
    folder = Path(images)
    if name == "voc0712" and images:
        return ["--voc", str(folder / "VOC2007"), str(folder / "VOC2012")]
    if name == "coco" and images:
        return ["--coco", str(folder.parent / "annotations" / f"instances_{folder.name}.json")]
    return None
