"""A detector, boxes and a detection set become the configs of Steps 3 and 4."""

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

FEWEST = 10  # iterations, of which schedules are shares
_AT_LEAST = 2000
_BATCH = 16  # images per iteration that the default numbers of iterations are made for


class Recipe(NamedTuple):
    """What was written.

    Attributes:
        pretrain: Config of Step 3.
        finetune: Configs of Step 4, CLS and DAP; none without a detection set.
        report: What will move, None without a detection set.
        notes: What to know about them, a sentence each.
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
            :func:`dap.datasets.detection_data.read_detection_data`; None for none.
        val: Another set to validate on.
        out: Folder of the configs.
        images: Folder of the images of the boxes, if they have moved.
        finetune_images: Folder of the images of a COCO file to fine-tune on.
        backbone: ``timm:NAME`` in place of the detector's backbone.
        weights: Weights of the classifier, in place of those that the recipe names.
        iterations: Of the pre-training; by default one pass of the boxes in batches of 16, but at
            least 2000.
        finetune_iterations: Of the fine-tuning; by default 2000, or 12 passes if they are more.
        batch_size: Images per GPU; by default the recipe's.
        work_dirs: Folder of the work directories.
        name: Of the configs; by default that of the detector, and of a backbone.

    Returns:
        What was written.

    Raises:
        OSError: If a file is missing, or a config with other content is there.
        ValueError: If an argument is out of range, the detector is unknown or not to be trained by
            boxes, or data is malformed.
    """
    _check_numbers(iterations, finetune_iterations, batch_size)
    found = find_detector(detector)
    store = find_boxes(os.fspath(boxes), _text(images), Path(work_dirs))
    check_detector(found.config.model, detector, store.has_masks)
    own = backbone_of(found.config.model, backbone, _text(weights))
    name = name or "_".join((found.name, *_short(backbone)))
    plan = Plan(found, own, name, work_dirs, batch_size)
    folder = Path(out)
    iterations = iterations or max(_AT_LEAST, store.size // _BATCH)
    sentence = f"{found.name} by iterations: what the pre-training and the fine-tunings share."
    _write(folder / f"base_{name}.py", sentence, found.base_for(folder), shared(plan))
    pretrain = folder / f"pretrain_{name}.py"
    sentence = f"Step 3: {found.name} on the boxes of {boxes}."
    _write(pretrain, sentence, f"./base_{name}.py", pretraining(plan, store, iterations))
    before = build(pretrain)
    notes = (_backbone_note(own), *_mask_notes(plan, store.has_masks))
    if finetune is None:
        return Recipe(pretrain, (), None, notes)
    target = read_target(
        os.fspath(finetune), _text(val), _text(finetune_images), folder / f"data_{name}"
    )
    checkpoint = f"{plan.work_dir(pretrain.stem)}/iter_{iterations}.pth"
    if needs_masks(found.config.model) and not target.has_masks:
        raise ValueError(
            f"{finetune}: {found.name} is trained by masks, and not each object has one "
            "(segmentation). Name data that has them, or the detector of the same family"
        )
    new_masks = target.has_masks and learns_masks(plan) and not store.has_masks
    pair = _write_pair(plan, folder, target, checkpoint, finetune_iterations, new_masks)
    report = will_transfer(before, build(pair[1]), checkpoint)
    return Recipe(pretrain, pair, report, notes)


def _check_numbers(
    iterations: int | None, finetune_iterations: int | None, batch_size: int | None
) -> None:
    for argument, value, least in (
        ("iterations", iterations, FEWEST),
        ("finetune_iterations", finetune_iterations, FEWEST),
        ("batch_size", batch_size, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{argument}: found {value}, expected {least} or more")


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
    count = iterations or max(_AT_LEAST, 12 * target.size // _BATCH)
    sentence = f"Step 4: {plan.detector.name} on {target.train.annotations}, from the classifier."
    _write(cls, sentence, f"./base_{plan.name}.py", finetuning(plan, target, count))
    sentence = "Step 4 from the pre-trained detector; all else is as in the other one."
    _write(dap, sentence, f"./{cls.name}", twin(plan, checkpoint, new_masks))
    return cls, dap


def _write(path: Path, docstring: str, base: str, config: Written) -> None:
    """Write a config; one that is there with other content has been edited, and stays."""
    with whole_file(path, once=True) as file:
        file.write(config_text(docstring, base, config.values, config.notes))


def _backbone_note(backbone: Backbone) -> str:
    note = f"the backbone starts from {backbone.origin}"
    if "://" not in backbone.origin:
        return note
    return f"{note}, which a training downloads; without network, name a file with --weights"


def _mask_notes(plan: Plan, has_masks: bool) -> Sequence[str]:
    if not learns_masks(plan):
        return ()
    if has_masks:
        return ("the masks of the boxes pre-train what learns from masks, too",)
    return ("boxes have no masks: the mask head is not pre-trained, and does not transfer",)


def _short(backbone: str | None) -> Sequence[str]:
    return () if backbone is None else (backbone.removeprefix("timm:").split(".")[0],)


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
