"""Write the configs of Steps 3 and 4 for a detector, boxes and a detection set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dap.files import whole_file
from dap.transfer.report import TransferReport

from .backbone import Backbone, backbone_of
from .boxes import find_boxes
from .code import config_text
from .configs import Plan, Written, finetuning, learns_masks, pretraining, shared, twin
from .model import check_detector, needs_masks
from .targets import Target, read_target
from .transfers import build, will_transfer
from .zoo import find_detector

MIN_ITERATIONS = 10  # warm-ups and intervals are tenths of the iterations
_DEFAULT_ITERATIONS = 2000  # lower limit of the defaults
_BATCH = 16  # images per iteration assumed by the default numbers of iterations


class Recipe(NamedTuple):
    """The configs that were written.

    Attributes:
        pretrain: Config of Step 3.
        finetune: Configs of Step 4, CLS and DAP; empty without a detection set.
        report: Weights that will be transferred; None without a detection set.
        notes: Remarks on the configs, one sentence each.
    """

    pretrain: Path
    finetune: tuple[Path, ...]
    report: TransferReport | None
    notes: tuple[str, ...]


def new_configs(
    detector: str,
    boxes: str | os.PathLike[str],
    finetune: str | os.PathLike[str] | None = None,
    val: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "my_configs",
    *,
    images: str | os.PathLike[str] | None = None,
    finetune_images: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    iterations: int | None = None,
    finetune_iterations: int | None = None,
    batch_size: int | None = None,
    work_dirs: str = "work_dirs",
    name: str | None = None,
) -> Recipe:
    """Write the configs of a pre-training and of its fine-tunings, and build their detectors.

    Args:
        detector: Name of a config of MMDetection, or a config file.
        boxes: Store of pseudo boxes, or a COCO file.
        finetune: Detection set to fine-tune on, see
            :func:`dap.datasets.detection_data.read_detection_data`; None for pre-training alone.
        val: Another detection set to validate on.
        out: Folder of the configs.
        images: Folder of the images of the boxes, if they have moved.
        finetune_images: Folder of the images of a COCO file to fine-tune on.
        backbone: ``timm:NAME`` to replace the detector's backbone.
        weights: Weights of the classifier, to replace those of the recipe.
        iterations: Iterations of the pre-training. Defaults to one epoch in batches of 16, but at
            least 2000.
        finetune_iterations: Iterations of the fine-tuning. Defaults to 12 epochs in batches of 16,
            but at least 2000.
        batch_size: Images per GPU. Defaults to that of the recipe.
        work_dirs: Folder of the work directories.
        name: Name of the configs. Defaults to that of the detector and, if given, the backbone.

    Returns:
        The configs that were written.

    Raises:
        OSError: If a file is missing, or a config exists with other content.
        ValueError: If an argument is out of range, the detector is unknown or cannot be trained on
            boxes, or data is malformed.
    """
    _check_numbers(iterations, finetune_iterations, batch_size)
    base = find_detector(detector)
    store = find_boxes(os.fspath(boxes), _text(images), Path(work_dirs))
    check_detector(base.config.model, detector, store.has_masks)
    chosen_backbone = backbone_of(base.config.model, backbone, _text(weights))
    name = name or "_".join((base.name, *_short(backbone)))
    plan = Plan(base, chosen_backbone, name, work_dirs, batch_size)
    folder = Path(out)
    iterations = iterations or max(_DEFAULT_ITERATIONS, store.size // _BATCH)
    sentence = f"{base.name} by iterations: base config of the pre-training and the fine-tunings."
    _write(folder / f"base_{name}.py", sentence, base.base_for(folder), shared(plan))
    pretrain = folder / f"pretrain_{name}.py"
    sentence = f"Step 3: {base.name} on the boxes of {boxes}."
    _write(pretrain, sentence, f"./base_{name}.py", pretraining(plan, store, iterations))
    pretrained_model = build(pretrain)
    notes = (_backbone_note(chosen_backbone), *_mask_notes(plan, store.has_masks))
    if finetune is None:
        return Recipe(pretrain, (), None, notes)
    target = read_target(
        os.fspath(finetune), _text(val), _text(finetune_images), folder / f"data_{name}"
    )
    checkpoint = f"{plan.work_dir(pretrain.stem)}/iter_{iterations}.pth"
    if needs_masks(base.config.model) and not target.has_masks:
        raise ValueError(
            f"{finetune}: {base.name} is trained on masks, but not every object has one "
            "(segmentation). Give data that has them, or the box detector of the same family"
        )
    new_masks = target.has_masks and learns_masks(plan) and not store.has_masks
    pair = _write_pair(plan, folder, target, checkpoint, finetune_iterations, new_masks)
    report = will_transfer(pretrained_model, build(pair[1]), checkpoint)
    return Recipe(pretrain, pair, report, notes)


def _check_numbers(
    iterations: int | None, finetune_iterations: int | None, batch_size: int | None
) -> None:
    for argument, value, minimum in (
        ("iterations", iterations, MIN_ITERATIONS),
        ("finetune_iterations", finetune_iterations, MIN_ITERATIONS),
        ("batch_size", batch_size, 1),
    ):
        if value is not None and value < minimum:
            raise ValueError(f"{argument}: found {value}, expected {minimum} or more")


def _write_pair(
    plan: Plan,
    folder: Path,
    target: Target,
    checkpoint: str,
    iterations: int | None,
    new_masks: bool,
) -> tuple[Path, Path]:
    """Write the fine-tuning from the classifier (CLS) and its twin from the detector (DAP)."""
    cls, dap = (folder / f"finetune_{plan.name}_{kind}.py" for kind in ("cls", "dap"))
    count = iterations or max(_DEFAULT_ITERATIONS, 12 * target.size // _BATCH)
    sentence = f"Step 4: {plan.detector.name} on {target.train.annotations}, from the classifier."
    _write(cls, sentence, f"./base_{plan.name}.py", finetuning(plan, target, count))
    sentence = "Step 4 from the pre-trained detector; otherwise the same as the config it inherits."
    _write(dap, sentence, f"./{cls.name}", twin(plan, checkpoint, new_masks))
    return cls, dap


def _write(path: Path, docstring: str, base: str, config: Written) -> None:
    """Write a config, unless it exists: one with other content may have been edited."""
    with whole_file(path, once=True) as file:
        file.write(config_text(docstring, base, config.values, config.notes))


def _backbone_note(backbone: Backbone) -> str:
    note = f"the backbone starts from {backbone.origin}"
    if "://" not in backbone.origin:
        return note
    return f"{note}, which a training downloads; without a network, give a file by --weights"


def _mask_notes(plan: Plan, has_masks: bool) -> Sequence[str]:
    if not learns_masks(plan):
        return ()
    if has_masks:
        return ("the masks of the boxes also pre-train the parts that learn from masks",)
    return ("boxes have no masks: the mask head is not pre-trained, and does not transfer",)


def _short(backbone: str | None) -> Sequence[str]:
    return () if backbone is None else (backbone.removeprefix("timm:").split(".")[0],)


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
