"""Content of the configs of a detector: pre-training, and fine-tuning with its twin.

Both inherit a base config with their common values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from .backbone import Backbone
from .boxes import Boxes
from .code import Code
from .model import class_counts, fixed_batch_norm, needs_masks, without_masks, without_segmentation
from .pipelines import (
    DATASET,
    TrainPipeline,
    Transform,
    boxes_alone,
    edited,
    masks_as_bitmaps,
    multi_scale,
    test_pipeline,
    train_pipeline,
)
from .schedule import EPOCH_HOOKS, auto_scale_lr, scaled, warm_up
from .targets import CocoFiles, Target
from .trees import merged, plain
from .zoo import Detector

_MAX_LISTED = 40  # classes that a config lists; if there are more, the file defines them
Values = dict[str, Any]
_TESTS, _AS_VALIDATED = "test_dataloader, test_evaluator", Code("val_dataloader, val_evaluator")


class Plan(NamedTuple):
    """Settings that the configs are written from.

    Attributes:
        detector: Detector whose config is inherited.
        backbone: Changes of its backbone.
        name: Name of the configs, such as ``rtmdet_tiny``.
        work_dirs: Folder of the work directories.
        batch_size: Images per GPU; None for that of the recipe.
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
    """Content of a config: its values, and comments on some of them."""

    values: Values
    notes: dict[str, str]


def shared(plan: Plan) -> Written:
    """Base config of both steps: the detector's recipe, iteration-based and without data sets.

    Only the pipelines of the data sets are kept.
    """
    config = plan.detector.config
    pipeline = train_pipeline(config)
    dataset = {"_delete_": True, "type": "dap.CheckedCocoDataset"}
    filter_cfg = {"filter_empty_gt": True}
    train = {**dataset, "filter_cfg": filter_cfg, "pipeline": Code(pipeline.path)}
    val = {**dataset, "test_mode": True, "pipeline": test_pipeline(config)}
    hooks, note = _custom_hooks(config)
    values: Values = {
        "custom_imports": _imports(plan),
        **_unloaded(plan),
        **_changed_backbone(plan),
        "train_dataloader": {
            "batch_size": plan.batch_size or config.train_dataloader.get("batch_size", 2),
            "sampler": {"_delete_": True, "type": "InfiniteSampler", "shuffle": True},
            "dataset": _wrapped(train, pipeline),
        },
        "val_dataloader": {"dataset": val},
        "val_evaluator": {"_delete_": True, "type": "CocoMetric", "metric": "bbox"},
        _TESTS: _AS_VALIDATED,
        "train_cfg": {"_delete_": True, "type": "IterBasedTrainLoop"},
        "default_hooks": {
            "checkpoint": {"by_epoch": False, "max_keep_ckpts": 2},
            "logger": {"log_metric_by_epoch": False},  # else validations are logged at step 0
        },
        "custom_hooks": hooks,
        "log_processor": {"by_epoch": False},
        "auto_scale_lr": auto_scale_lr(config),
    }
    imports = "dap lets torch load checkpoints"
    return Written(values, {"custom_imports": imports, "custom_hooks": note})


def pretraining(plan: Plan, boxes: Boxes, iterations: int) -> Written:
    """Config of Step 3: train the detector on the boxes of a store."""
    config = plan.detector.config
    learns = learns_masks(plan) and boxes.has_masks
    removed = without_segmentation(config.model) if learns else without_masks(config.model)
    load = masks_as_bitmaps if learns else boxes_alone
    steps, train, scale = _on_boxes(train_pipeline(config), boxes, load)
    interval = max(1, iterations // 10)
    values: Values = {
        "num_classes": boxes.classes,
        "iterations": iterations,
        **_work_dir(plan, f"pretrain_{plan.name}"),
        "model": merged(class_counts(config), removed),
        **steps,
        "train_dataloader": {"dataset": train},
        "val_dataloader": {"dataset": {"type": "dap.PseudoBoxDataset", "part": "val"}},
        "val_evaluator": {"_delete_": True, "type": "dap.BoxLocalization"},
        "val_cfg": {"_delete_": True, "type": "dap.HeldOutValLoop"},
        "test_dataloader = test_evaluator = test_cfg": None,
        **_length(interval),
        "param_scheduler": warm_up(config, iterations),
    }
    values["default_hooks"]["visualization"] = {"type": "dap.ValidationPicturesHook"}
    notes = {
        "num_classes": "of the boxes",
        next(iter(steps), "train_dataloader"): f"Multi-scale: {scale}.",
        "val_dataloader": "held-out images",
        "param_scheduler": "a warm-up",
    }
    if removed and not learns:
        notes["model"] = "boxes have no masks: Step 4 trains the mask head"
    return Written(values, notes)


def finetuning(plan: Plan, target: Target, iterations: int) -> Written:
    """Config of Step 4, initialised from the classifier's backbone (CLS)."""
    config = plan.detector.config
    removed = without_masks(config.model)
    keeps_masks = learns_masks(plan) and target.has_masks
    pipeline = train_pipeline(config)
    path = f"{DATASET}.dataset.pipeline" if pipeline.outer else f"{DATASET}.pipeline"
    changed = pipeline.inner if keeps_masks else boxes_alone(pipeline.inner)
    if keeps_masks and target.has_rle:
        changed = masks_as_bitmaps(pipeline.inner)
    steps = edited("pipeline", path, pipeline.inner, changed)
    train = _coco(target.train) | ({"pipeline": Code("pipeline")} if steps else {})
    metric = {"metric": ["bbox", "segm"]} if keeps_masks else {}
    values: Values = {
        "metainfo": {"classes": target.classes if len(target.classes) <= _MAX_LISTED else ()},
        "num_classes": len(target.classes),
        "iterations": iterations,
        **_work_dir(plan, f"finetune_{plan.name}_cls"),
        "model": merged(class_counts(config), {} if keeps_masks else removed),
        **steps,
        "train_dataloader": {"dataset": _wrapped(train, pipeline)},
        "val_dataloader": {"dataset": _coco(target.val)},
        "val_evaluator": {"ann_file": target.val.annotations, **metric},
        _TESTS: _AS_VALIDATED,
        **_length(max(1, iterations // 10)),
        "param_scheduler": scaled(config, iterations),
    }
    notes = {"param_scheduler": "from the detector's recipe, scaled to these iterations"}
    if removed and not keeps_masks:
        notes["model"] = "the data set has no masks"
    if pipeline.outer or any("Cached" in step["type"] for step in pipeline.inner):
        notes["train_dataloader"] = "Mosaic and MixUp are used to the end"
    return Written(values, notes)


def learns_masks(plan: Plan) -> bool:
    """Whether a part of the detector learns from masks."""
    model = plan.detector.config.model
    return needs_masks(model) or bool(without_masks(model))


def twin(plan: Plan, checkpoint: str, masks_are_new: bool) -> Written:
    """Config of Step 4, initialised from the pre-trained detector (DAP); it inherits CLS."""
    init_cfg: Values = {"type": "dap.PretrainedDetector", "checkpoint": checkpoint}
    if isinstance(plan.detector.config.model.get("init_cfg"), Mapping):
        init_cfg = {"_delete_": True, **init_cfg}
    if masks_are_new:
        init_cfg["allow_missing"] = "roi_head.mask_head"
    model = merged({"init_cfg": init_cfg}, plan.backbone.twin_changes)
    return Written({**_work_dir(plan, f"finetune_{plan.name}_dap"), "model": model}, {})


def _on_boxes(
    pipeline: TrainPipeline, boxes: Boxes, load: Callable[[Sequence[Transform]], list[Transform]]
) -> tuple[Values, Values, str]:
    """Training set of a store with the paper's multi-scale training.

    Args:
        pipeline: Training pipeline of the recipe.
        boxes: The store.
        load: Changes how a pipeline loads annotations.

    Returns:
        Assignments of the pipeline, the data set, and a phrase on the scales.
    """
    recipe = pipeline.outer or pipeline.inner
    changed, scale = multi_scale(load(recipe))
    steps = edited("pipeline", f"{DATASET}.pipeline", recipe, changed)
    dataset: Values = {
        "type": "dap.PseudoBoxDataset",
        "part": "train",
        "ann_file": boxes.manifest,
        "data_prefix": {"img": boxes.images},
    }
    reference = {"pipeline": Code("pipeline")} if steps else {}
    if not pipeline.outer:
        return steps, dataset | reference, scale
    inner = load(pipeline.inner)
    if inner != pipeline.inner:
        dataset["pipeline"] = inner
    return steps, {"dataset": dataset, **reference}, scale


def _coco(files: CocoFiles) -> Values:
    return {
        "ann_file": files.annotations,
        "data_prefix": {"img": files.images},
        "metainfo": Code("metainfo"),
    }


def _length(interval: int) -> Values:
    """Length of a training, and the interval of validations and checkpoints."""
    return {
        "train_cfg": {"max_iters": Code("iterations"), "val_interval": interval},
        "default_hooks": {"checkpoint": {"interval": interval}},
    }


def _work_dir(plan: Plan, stem: str) -> Values:
    """Work directory of a config, unless it is MMDetection's default."""
    return {} if plan.work_dirs == "work_dirs" else {"work_dir": plan.work_dir(stem)}


def _wrapped(dataset: Values, pipeline: TrainPipeline) -> Values:
    """Put the data set into the recipe's wrapper that mixes images, if there is one."""
    return {"dataset": dataset} if pipeline.outer else dataset


def _changed_backbone(plan: Plan) -> Values:
    changes = plan.backbone.changes
    if "type" not in changes.get("backbone", {}):
        changes = merged(fixed_batch_norm(plan.detector.config.model), changes)
    return {"model": changes} if changes else {}


def _custom_hooks(config: Config) -> tuple[list[Any], str]:
    """The recipe's hooks except those that act at an epoch, dap's hooks, and a comment on them."""
    types = [str(hook["type"]) for hook in config.get("custom_hooks") or []]
    kept = [number for number, kind in enumerate(types) if kind not in EPOCH_HOOKS]
    recipe = [Code(f"_base_.custom_hooks[{number}]") for number in kept]
    note = f"of the recipe {', '.join(types[number] for number in kept)}" if kept else ""
    if len(kept) < len(types):
        note += f" without {', '.join(kind for kind in types if kind in EPOCH_HOOKS)}"
    own = ("NumClassCheckHook", "dap.TotalBatchHook", "dap.ResumedDataHook")
    return [*recipe, *({"type": name} for name in own)], note.strip()


def _imports(plan: Plan) -> Values:
    """Imports of the recipe and ``dap``, which lets torch load checkpoints."""
    recipe = plain(plan.detector.config.get("custom_imports") or {}).get("imports") or []
    recipe = [recipe] if isinstance(recipe, str) else list(recipe)
    return {"imports": [*dict.fromkeys([*recipe, "dap"])], "allow_failed_imports": False}


def _unloaded(plan: Plan) -> Values:
    """Unset the recipe's ``load_from``, which would override every initialisation."""
    return {"load_from": None} if plan.detector.config.get("load_from") else {}
