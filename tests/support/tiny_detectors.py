"""Tiny detectors of real families, and checkpoints with weights that tell where they come from."""

import copy
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.utils import get_installed_path
from torch import nn

MMDET_CONFIGS = Path(get_installed_path("mmdet")) / ".mim/configs"

_RESNET = {
    "backbone.depth": 18,
    "backbone.base_channels": 4,
    "backbone.init_cfg": None,
    "neck.in_channels": [4, 8, 16, 32],
    "neck.out_channels": 8,
}
_RPN = {"rpn_head.in_channels": 8, "rpn_head.feat_channels": 8}
_BOX_HEAD = {"in_channels": 8, "fc_out_channels": 16}
_FASTER_RCNN = {
    **_RESNET,
    **_RPN,
    "roi_head.bbox_roi_extractor.out_channels": 8,
    **{f"roi_head.bbox_head.{key}": value for key, value in _BOX_HEAD.items()},
}

# Family: stock config, changes that make it tiny, where the number of categories stands.
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "faster-rcnn": (
        "_base_/models/faster-rcnn_r50_fpn.py",
        _FASTER_RCNN,
        ("roi_head.bbox_head.num_classes",),
    ),
    "faster-rcnn-agnostic": (
        "_base_/models/faster-rcnn_r50_fpn.py",
        {**_FASTER_RCNN, "roi_head.bbox_head.reg_class_agnostic": True},
        ("roi_head.bbox_head.num_classes",),
    ),
    "mask-rcnn": (
        "_base_/models/mask-rcnn_r50_fpn.py",
        {
            **_FASTER_RCNN,
            "roi_head.mask_roi_extractor.out_channels": 8,
            "roi_head.mask_head.in_channels": 8,
            "roi_head.mask_head.conv_out_channels": 8,
        },
        ("roi_head.bbox_head.num_classes", "roi_head.mask_head.num_classes"),
    ),
    "cascade-rcnn": (
        "_base_/models/cascade-rcnn_r50_fpn.py",
        {
            **_RESNET,
            **_RPN,
            "roi_head.bbox_roi_extractor.out_channels": 8,
            **{
                f"roi_head.bbox_head.{stage}.{key}": value
                for stage in range(3)
                for key, value in _BOX_HEAD.items()
            },
        },
        tuple(f"roi_head.bbox_head.{stage}.num_classes" for stage in range(3)),
    ),
    "retinanet": (
        "_base_/models/retinanet_r50_fpn.py",
        {**_RESNET, "bbox_head.in_channels": 8, "bbox_head.feat_channels": 8},
        ("bbox_head.num_classes",),
    ),
    "dino": (
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        {
            **_RESNET,
            "neck.in_channels": [8, 16, 32],
            "neck.out_channels": 256,  # fixed in the code of mmdet
            "num_queries": 5,
            "test_cfg.max_per_img": 5,
            "encoder.num_layers": 1,
            "encoder.layer_cfg.ffn_cfg.feedforward_channels": 8,
            "decoder.num_layers": 1,
            "decoder.layer_cfg.ffn_cfg.feedforward_channels": 8,
        },
        ("bbox_head.num_classes",),
    ),
}

# Parameters of a Faster R-CNN whose shapes depend on the number of categories.
FASTER_RCNN_DEPENDENT = {
    f"roi_head.bbox_head.{layer}.{kind}"
    for layer in ("fc_cls", "fc_reg")
    for kind in ("weight", "bias")
}


def tiny_model(family: str, num_classes: int, **changes: Any) -> ConfigDict:
    """Give the ``model`` of a family's stock config, made tiny."""
    file, small, counts = FAMILIES[family]
    config = Config({"model": Config.fromfile(MMDET_CONFIGS / file).model})
    changes = {**small, **dict.fromkeys(counts, num_classes), **changes}
    config.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    return config.model


def build(model_cfg: ConfigDict) -> nn.Module:
    """Build a detector as a Runner with ``default_scope='mmdet'`` does."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model_cfg)


def mark(detector: nn.Module, seed: int = 0) -> nn.Module:
    """Fill a detector with numbers that no initialisation gives."""
    generator = torch.Generator().manual_seed(seed)
    for value in detector.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 10)
    return detector


def save_mmengine(
    path: Path, detector: nn.Module, model_cfg: ConfigDict | None, scope: str = "mmdet"
) -> Path:
    """Write what a Runner writes: weights, log, config text, optimizer."""
    meta = {"epoch": 1, "dataset_meta": {"classes": ("a", "b")}}
    if model_cfg is not None:
        meta["cfg"] = Config({"default_scope": scope, "model": model_cfg}).pretty_text
    optimizer = torch.optim.SGD(detector.parameters(), 0.1, momentum=0.9)
    hub = {"log_scalars": {"train/loss": HistoryBuffer([1.0, 0.5], [1, 1])}}
    checkpoint = {
        "meta": meta,
        "state_dict": detector.state_dict(),
        "message_hub": hub,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, path)
    return path


def with_init_cfg(model_cfg: ConfigDict, /, **init_cfg: Any) -> ConfigDict:
    """Copy a detector's config, to be initialised by dap.PretrainedDetector."""
    model_cfg = copy.deepcopy(model_cfg)
    model_cfg.init_cfg = {"type": "dap.PretrainedDetector"} | {
        key: str(value) if isinstance(value, Path) else value for key, value in init_cfg.items()
    }
    return model_cfg


def save_marked(
    path: Path,
    family: str = "faster-rcnn",
    num_classes: int = 4,
    kind: str = "mmengine",
    **changes: Any,
) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write a checkpoint of a marked detector, with its config or raw; give path and weights."""
    model_cfg = tiny_model(family, num_classes, **changes)
    detector = mark(build(copy.deepcopy(model_cfg)))
    if kind == "mmengine":
        save_mmengine(path, detector, model_cfg)
    else:
        torch.save(detector.state_dict(), path)
    return path, detector.state_dict()


def initialised(target_cfg: ConfigDict, checkpoint: Path, **kwargs: Any) -> nn.Module:
    """Build a detector and initialise it by dap.PretrainedDetector, without a Runner."""
    detector = build(with_init_cfg(target_cfg, checkpoint=checkpoint, **kwargs))
    detector.init_weights()
    return detector


def assert_moved(
    state: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], dependent: set[str]
) -> None:
    """Check that all weights but the fresh ones in ``dependent`` are those of a checkpoint."""
    for name, value in state.items():
        if name in dependent:
            assert value.abs().max() < 10, name
        else:
            assert torch.equal(value, weights[name]), name


def run_one_iteration(
    work_dir: Path,
    annotations: Path,
    model_cfg: ConfigDict,
    classes: tuple[str, ...],
    **changes: Any,
) -> Path:
    """Train with a learning rate of zero, so that the checkpoint holds the initial weights."""
    Runner.from_cfg(one_iteration(work_dir, annotations, model_cfg, classes, **changes)).train()
    return work_dir / "iter_1.pth"


def one_iteration(
    work_dir: Path,
    annotations: Path,
    model_cfg: ConfigDict,
    classes: tuple[str, ...],
    **changes: Any,
) -> Config:
    """Give the config of a training of one iteration that changes nothing."""
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "Resize", "scale": (64, 64), "keep_ratio": True},
        {"type": "PackDetInputs"},
    ]
    dataset = {
        "type": "CocoDataset",
        "ann_file": str(annotations),
        "data_prefix": {"img": str(annotations.parent / "images")},
        "metainfo": {"classes": classes},
        "pipeline": pipeline,
        "filter_cfg": {"filter_empty_gt": True, "min_size": 1},
    }
    return Config(
        {
            "default_scope": "mmdet",
            "work_dir": str(work_dir),
            "model": model_cfg,
            "train_dataloader": {
                "batch_size": 2,
                "num_workers": 0,
                "dataset": dataset,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
            },
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 1, "val_interval": 10},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.0}},
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}
            },
            "experiment_name": work_dir.name,
            **changes,
        }
    )
