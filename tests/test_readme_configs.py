"""Configs that README and docs show to those who have data and detectors of their own."""

import re

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, DefaultScope

from dap.testing import make_coco
from tests.support.workplace import (
    CONFIGS,
    ROOT,
    SMALL_FASTER_RCNN,
    SMALL_RETINANET,
    Place,
    make_store,
)

SMALL_SCALES = "train_dataloader.dataset.pipeline.2.scales=[(160,48),(160,64)]"


def block(first_line):
    """The code block of README or docs that begins with this line; the same wherever it is."""
    texts = [path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    pattern = rf"```python\n({re.escape(first_line)}.*?)```"
    (found,) = {block for text in texts for block in re.findall(pattern, text, re.DOTALL)}
    return found


@pytest.mark.parametrize("base", ["mmdet::retinanet/retinanet_r50_fpn_1x_coco.py",
                                  "mmdet::atss/atss_r50_fpn_1x_coco.py"])  # fmt: skip
def test_another_detector_by_changing_the_base(tmp_path, base):
    text = block('_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"')
    config = tmp_path / "mine.py"
    config.write_text(text.replace("mmdet::retinanet/retinanet_r50_fpn_1x_coco.py", base))
    annotations = make_coco(tmp_path / "made")
    (tmp_path / "made" / "images").rename(tmp_path / "my_images")
    make_store(annotations, tmp_path / "boxes")
    output = Place(tmp_path).train(
        config, "run", *SMALL_RETINANET, SMALL_SCALES, "model.bbox_head.num_classes=3",
        "model.bbox_head.feat_channels=64",
        "model.backbone.init_cfg=None", "train_cfg.max_epochs=1", "default_hooks.logger.interval=1",
    )  # fmt: skip
    assert "Epoch(train) [1][3/3]" in output  # 5 of 6 images have boxes, 2 a batch
    meta = torch.load(tmp_path / "work_dirs" / "run" / "epoch_1.pth")["meta"]
    assert meta["dataset_meta"]["classes"] == ("blue", "green", "red")


def test_finetuning_config_with_own_classes_and_data(tmp_path):
    path = "path/to/dap/configs/finetune/coco/faster-rcnn_r50-dap-in1k_fpn_90k_coco.py"
    text = block(f'_base_ = "{path}"')
    config = tmp_path / "mine.py"
    config.write_text(text.replace("path/to/dap/configs", str(CONFIGS)))
    site = tmp_path / "data" / "site"
    for seed, split in enumerate(("train", "val")):
        made = make_coco(site, 4, ("helmet", "vest"), seed)
        made.rename(site / f"{split}.json")
    pretrained = save_pretrained(tmp_path / "pretrained.pth")
    output = Place(tmp_path).train(
        config, "run", *SMALL_FASTER_RCNN,
        f"model.init_cfg.checkpoint={pretrained}",
        "train_dataloader.dataset.pipeline.2.scale=(96,64)",
        "val_dataloader.dataset.pipeline.1.scale=(96,64)",
        "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False",
        "train_cfg.max_iters=2", "train_cfg.val_interval=2", "model.test_cfg.rcnn.score_thr=0.0",
    )  # fmt: skip
    assert "coco/bbox_mAP" in output
    assert "category-dependent: roi_head.bbox_head.fc_cls" in output
    meta = torch.load(tmp_path / "work_dirs" / "run" / "iter_2.pth")["meta"]
    assert meta["dataset_meta"]["classes"] == ("helmet", "vest")


def save_pretrained(path):
    """A checkpoint of Step 3, of a small detector, as MMEngine writes it."""
    register_all_modules(init_default_scope=False)
    config = Config.fromfile(CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py")
    options = (option.split("=") for option in SMALL_FASTER_RCNN)
    config.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options})
    config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    torch.save({"state_dict": model.state_dict(), "meta": {"cfg": config.pretty_text}}, path)
    return path
