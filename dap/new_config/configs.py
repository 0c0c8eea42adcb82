"""The configs of Steps 3 and 4 for a detector: pre-training, and fine-tuning with its twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .backbone import Backbone
from .boxes import Boxes
from .code import Code
from .model import (
    class_counts,
    fixed_batch_norm,
    needs_masks,
    without_masks,
    without_segmentation,
)
from .pipelines import (
    Transform,
    boxes_alone,
    masks_as_bitmaps,
    multi_scale,
    test_pipeline,
    train_pipeline,
)
from .schedule import auto_scale_lr, hooks_without_switches, scaled, warm_up
from .targets import Target
from .trees import merged, plain
from .zoo import Detector

_LISTED = 40  # classes that a config names; more are taken from the file
Values = dict[str, Any]


class Plan(NamedTuple):
    """What configs are written for.

    Attributes:
        detector: To inherit from.
        backbone: What is changed of its backbone.
        name: Of the configs, such as ``rtmdet_tiny``.
        work_dirs: Folder of the work directories.
        batch_size: Images per GPU; None for the recipe's.
    """

    detector: Detector
    backbone: Backbone
    name: str
    work_dirs: str
    batch_size: int | None

    def work_dir(self, stem: str) -> str:
        """Work directory of a config."""
        return f"{self.work_dirs}/{stem}"


class Written(NamedTuple):
    """Content of a config: its values, and comments above some of them."""

    values: Values
    notes: dict[str, str]


def pretraining(plan: Plan, boxes: Boxes, iterations: int) -> Written:
    """Step 3: the detector on the boxes of a store."""
    config = plan.detector.config
    learns = learns_masks(plan) and boxes.has_masks
    gone = without_segmentation(config.model) if learns else without_masks(config.model)
    pipeline = train_pipeline(config)
    dataset: Values = {
        "_delete_": True,
        "type": "dap.PseudoBoxDataset",
        "ann_file": boxes.manifest,
        "data_prefix": {"img": boxes.images},
        "part": "train",
        "filter_cfg": {"filter_empty_gt": True},
        "pipeline": Code("pipeline"),
    }
    load = masks_as_bitmaps if learns else boxes_alone
    inner, outer, scales = _scaled_pipelines(pipeline.inner, pipeline.outer, load)
    interval = max(1, iterations // 10)
    pictures = {"pictures": {"type": "dap.DetectorPicturesHook", "interval": interval}}
    validation = _loader(plan, {
        "_delete_": True,
        "type": "dap.PseudoBoxDataset",
        "part": "val",
        "test_mode": True,
        "pipeline": test_pipeline(config),
    }, train=False)  # fmt: skip
    values: Values = {
        "custom_imports": _imports(plan),
        "num_classes": boxes.classes,
        "iterations": iterations,
        "work_dir": plan.work_dir(f"pretrain_{plan.name}"),
        **_unloaded(plan),
        "model": _model(plan, gone),
        "pipeline": inner,
        "train_dataloader": _loader(plan, _wrapped(dataset, outer, pipeline.outer), train=True),
        "val_dataloader": validation,
        "val_evaluator": {"_delete_": True, "type": "dap.BoxLocalization"},
        "val_cfg": {"_delete_": True, "type": "dap.HeldOutValLoop"},
        "test_dataloader": None,
        "test_evaluator": None,
        "test_cfg": None,
        **_training(plan, iterations, interval, pictures),
        "param_scheduler": warm_up(config, iterations),
    }
    notes = {
        "num_classes": "of the boxes",
        "pipeline": scales,
        "val_dataloader": "Images that the training set holds out.",
        "param_scheduler": "Constant behind a warm-up, as in the paper.",
    }
    if gone and not learns:
        notes["model"] = "Boxes have no masks: the mask head is left to the fine-tuning."
    return Written(values, notes)


def finetuning(plan: Plan, target: Target, iterations: int) -> Written:
    """Step 4 from the classifier's backbone (CLS)."""
    config = plan.detector.config
    has_mask_head = learns_masks(plan)
    keeps_masks = has_mask_head and target.has_masks
    pipeline = train_pipeline(config)
    own: Any = pipeline.inner if keeps_masks else boxes_alone(pipeline.inner)
    if keeps_masks and target.has_rle:
        own = masks_as_bitmaps(pipeline.inner)
    if own == pipeline.inner:
        own = Code(pipeline.path)
    interval = max(1, iterations // 10)
    classes = _classes(target)
    evaluator = {
        "_delete_": True,
        "type": "CocoMetric",
        "ann_file": target.val.annotations,
        "metric": ["bbox", "segm"] if keeps_masks else "bbox",
    }
    values: Values = {
        "custom_imports": _imports(plan),
        "classes": classes,
        "num_classes": len(target.classes),
        "iterations": iterations,
        "work_dir": plan.work_dir(f"finetune_{plan.name}_cls"),
        **_unloaded(plan),
        "model": _model(plan, {} if keeps_masks else without_masks(config.model)),
        "train_dataloader": _loader(plan, _wrapped({
            "_delete_": True,
            "type": "dap.CheckedCocoDataset",
            "ann_file": target.train.annotations,
            "data_prefix": {"img": target.train.images},
            "metainfo": {"classes": Code("classes")},
            "filter_cfg": {"filter_empty_gt": True},
            "pipeline": own,
        }, None, pipeline.outer), train=True),
        "val_dataloader": _loader(plan, {
            "_delete_": True,
            "type": "dap.CheckedCocoDataset",
            "ann_file": target.val.annotations,
            "data_prefix": {"img": target.val.images},
            "metainfo": {"classes": Code("classes")},
            "test_mode": True,
            "pipeline": test_pipeline(config),
        }, train=False),
        "test_dataloader": Code("val_dataloader"),
        "val_evaluator": evaluator,
        "test_evaluator": Code("val_evaluator"),
        **_training(plan, iterations, interval, {}),
        "param_scheduler": scaled(config, iterations),
    }  # fmt: skip
    notes = {"param_scheduler": "That of the detector's own recipe, for this many iterations."}
    if not keeps_masks and has_mask_head:
        notes["model"] = "The data set has no masks, so that there is no mask head."
    if pipeline.outer or any("Cached" in step["type"] for step in pipeline.inner):
        notes["train_dataloader"] = "Mosaic and MixUp stay on to the end."
    return Written(values, notes)


def learns_masks(plan: Plan) -> bool:
    """Whether the detector has something that learns from masks."""
    model = plan.detector.config.model
    return needs_masks(model) or bool(without_masks(model))


def twin(plan: Plan, checkpoint: str, masks_are_new: bool) -> Written:
    """Step 4 from the pre-trained detector (DAP): what differs from CLS, the initialisation."""
    init_cfg: Values = {"type": "dap.PretrainedDetector", "checkpoint": checkpoint}
    if isinstance(plan.detector.config.model.get("init_cfg"), Mapping):
        init_cfg = {"_delete_": True, **init_cfg}
    if masks_are_new:
        init_cfg["allow_missing"] = "roi_head.mask_head"
    model = merged({"init_cfg": init_cfg}, plan.backbone.twin)
    return Written({"work_dir": plan.work_dir(f"finetune_{plan.name}_dap"), "model": model}, {})


def _scaled_pipelines(
    inner: list[Transform],
    outer: list[Transform] | None,
    load: Callable[[Sequence[Transform]], list[Transform]],
) -> tuple[list[Transform], list[Transform] | None, str]:
    """Both pipelines in the paper's multi-scale, the outer one None where it stays as it is."""
    if outer is None:
        changed, what = multi_scale(load(inner))
        return changed, None, f"Multi-scale: {what}."
    changed, what = multi_scale(load(outer))
    inner = load(inner)
    return inner, None if changed == outer else changed, f"Multi-scale: {what}."


def _wrapped(dataset: Values, outer: list[Transform] | None, wraps: object) -> Values:
    """Put the data set where the recipe has its own: in the wrapper that mixes images, or alone."""
    if not wraps:
        return dataset
    return {"dataset": dataset, **({"pipeline": outer} if outer else {})}


def _loader(plan: Plan, dataset: Values, train: bool) -> Values:
    own = plan.detector.config.train_dataloader
    loader: Values = {"batch_size": plan.batch_size or own.get("batch_size", 2)} if train else {}
    if train:
        loader["sampler"] = {"_delete_": True, "type": "InfiniteSampler", "shuffle": True}
    return {**loader, "dataset": dataset}


def _model(plan: Plan, masks: Values) -> Values:
    model = plan.detector.config.model
    counts = class_counts(plan.detector.config)
    batch_norm = (
        {} if "type" in plan.backbone.changes.get("backbone", {}) else fixed_batch_norm(model)
    )
    return merged(counts, batch_norm, masks, plan.backbone.changes)


def _imports(plan: Plan) -> Values:
    """``dap``, which lets checkpoints load, beside what the recipe imports."""
    own = plain(plan.detector.config.get("custom_imports") or {}).get("imports") or []
    own = [own] if isinstance(own, str) else list(own)
    return {"imports": [*dict.fromkeys([*own, "dap"])], "allow_failed_imports": False}


def _unloaded(plan: Plan) -> Values:
    """A ``load_from`` of the recipe would replace every initialisation."""
    return {"load_from": None} if plan.detector.config.get("load_from") else {}


def _classes(target: Target) -> Any:
    return target.classes if len(target.classes) <= _LISTED else ()


def _training(plan: Plan, iterations: int, interval: int, hooks: Values) -> Values:
    """A training by iterations, in the recipe's own optimizer."""
    config = plan.detector.config
    kept = hooks_without_switches(config)
    own = plain(config.get("custom_hooks") or []) if kept is None else kept
    checkpoint = {"by_epoch": False, "interval": interval, "max_keep_ckpts": 1}
    return {
        "train_cfg": {
            "_delete_": True,
            "type": "IterBasedTrainLoop",
            "max_iters": Code("iterations"),
            "val_interval": interval,
        },
        "default_hooks": {"checkpoint": checkpoint, **hooks},
        "custom_hooks": [*own, {"type": "NumClassCheckHook"}, {"type": "dap.TotalBatchHook"}],
        "log_processor": {"by_epoch": False},
        "auto_scale_lr": auto_scale_lr(config),
    }
