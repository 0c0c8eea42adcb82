"""Config files that inherit MMDetection's recipes and make their models tiny, and tiny data."""

import json
from pathlib import Path

from mmengine.config import Config

from dap.new_config.code import config_text
from dap.new_config.zoo import find_detector
from dap.testing import make_coco

RESNET = {"depth": 18, "base_channels": 4, "init_cfg": None}
NECK = {"in_channels": [4, 8, 16, 32], "out_channels": 8}
BOX_HEAD = {"in_channels": 8, "fc_out_channels": 16}
RPN = {"in_channels": 8, "feat_channels": 8}
ROIS = {"bbox_roi_extractor": {"out_channels": 8}, "bbox_head": BOX_HEAD}
SCALE = {"type": "Resize", "scale": (96, 64), "keep_ratio": True}
DEFORMABLE = {"num_layers": 1, "layer_cfg": {"ffn_cfg": {"feedforward_channels": 8}}}
# Recipe to inherit → what makes its model tiny.
TINY = {
    "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py": {
        "backbone": RESNET,
        "neck": NECK,
        "rpn_head": RPN,
        "roi_head": ROIS,
    },
    "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py": {
        "backbone": RESNET,
        "neck": NECK,
        "rpn_head": RPN,
        "roi_head": {
            **ROIS,
            "mask_roi_extractor": {"out_channels": 8},
            "mask_head": {"in_channels": 8, "conv_out_channels": 8},
        },
    },
    "mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py": {
        "backbone": {"widen_factor": 0.125, "norm_cfg": {"type": "BN"}, "init_cfg": None},
        "neck": {"in_channels": [32, 64, 128], "out_channels": 16, "norm_cfg": {"type": "BN"}},
        "bbox_head": {"in_channels": 16, "feat_channels": 16, "norm_cfg": {"type": "BN"}},
    },
    "mmdet::yolox/yolox_tiny_8xb8-300e_coco.py": {
        "backbone": {"widen_factor": 0.125},
        "neck": {"in_channels": [32, 64, 128], "out_channels": 16},
        "bbox_head": {"in_channels": 16, "feat_channels": 16},
    },
    "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py": {
        "num_queries": 5,
        "backbone": RESNET,
        "neck": {"in_channels": [8, 16, 32]},
        "encoder": DEFORMABLE,
        "decoder": DEFORMABLE,
        "test_cfg": {"max_per_img": 5},
    },
}


def config_of(name: str) -> Config:
    """The config of a detector of MMDetection's zoo."""
    return find_detector(name).config


def write_tiny_config(folder: Path, base: str) -> Path:
    """Write a config that inherits a recipe and makes its model tiny."""
    path = folder / f"tiny_{base.rsplit('/', 1)[-1]}"
    path.write_text(config_text("A tiny detector.", base, {"model": TINY[base]}, {}))
    return path


def with_outlines(path: Path) -> Path:
    """Give each object of a COCO file its box as its outline."""
    content = json.loads(path.read_text())
    for item in content["annotations"]:
        x, y, w, h = item["bbox"]
        item["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    path.write_text(json.dumps(content))
    return path


def make_data(folder: Path, masks: bool = False) -> tuple[Path, Path]:
    """Write boxes of three classes, with masks or without, and a detection set with outlines."""
    boxes = make_coco(folder / "boxes", images=10, seed=1)
    if masks:
        with_outlines(boxes)
    return boxes, with_outlines(make_coco(folder / "data", 6, ("cat", "dog"), seed=2))
