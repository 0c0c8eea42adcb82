"""Categories that do not fit stop the training before its first step."""

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.runner import Runner

from dap.datasets import CheckedCocoDataset
from dap.testing import make_coco

ROOT = Path(__file__).resolve().parents[2]


def build(path, classes, kind=CheckedCocoDataset, **kwargs):
    return kind(
        ann_file=str(path),
        data_prefix={"img": f"{path.parent}/images/"},
        metainfo={"classes": classes},
        pipeline=[],
        filter_cfg={"filter_empty_gt": True},
        **kwargs,
    )


def test_is_the_stock_dataset_where_the_names_agree(tmp_path):
    path, classes = make_coco(tmp_path), ("blue", "green", "red")
    checked, stock = build(path, classes), build(path, classes, CocoDataset)
    assert len(checked) == len(stock) == 5  # the first image has no box
    for index in range(5):
        assert checked.get_data_info(index) == stock.get_data_info(index)
    assert checked.metainfo["classes"] == classes


def test_classes_are_numbered_as_the_config_does(tmp_path):
    path, classes = make_coco(tmp_path), ("red", "blue", "green")
    turned, stock = build(path, classes), build(path, ("blue", "green", "red"), CocoDataset)
    for index in range(5):
        found, expected = turned.get_data_info(index), stock.get_data_info(index)
        names = [classes[item["bbox_label"]] for item in found["instances"]]
        assert names == [("blue", "green", "red")[i["bbox_label"]] for i in expected["instances"]]
    assert turned.metainfo["classes"] == classes


def test_another_order_would_exchange_names_in_a_test(tmp_path):
    """CocoMetric numbers as the file does."""
    with pytest.raises(ValueError, match=r"order blue, green, red, the config in the order red"):
        build(make_coco(tmp_path), ("red", "blue", "green"), test_mode=True)


def test_empty_classes_take_the_names_of_the_file(tmp_path):
    dataset = build(make_coco(tmp_path), ())
    assert dataset.metainfo["classes"] == ("blue", "green", "red")
    assert len(dataset) == 5


def test_categories_that_the_config_does_not_know_are_named(tmp_path):
    path = make_coco(tmp_path)
    with pytest.raises(ValueError, match=r"annotations\.json.*1 in the file.*\(blue\)"):
        build(path, ("green", "red"))
    dataset = build(path, ("green", "red"), allow_unused=True)
    assert dataset.metainfo["classes"] == ("green", "red")


@pytest.mark.parametrize("allow_unused", [False, True])
def test_classes_that_the_file_does_not_have_are_named(tmp_path, allow_unused):
    with pytest.raises(ValueError, match=r"1 in the config are not in the file \(zebra\)"):
        build(make_coco(tmp_path), ("red", "green", "blue", "zebra"), allow_unused=allow_unused)


def test_file_without_a_box(tmp_path):
    path = make_coco(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(ValueError, match="none of 6 images has a box"):
        build(path, ())


def test_runner_stops_where_head_and_file_differ(tmp_path):
    path = make_coco(tmp_path)
    config = Config.fromfile(str(ROOT / "configs/pretrain/faster-rcnn_r50_fpn_40k_in1k-boxes.py"))
    config.merge_from_dict(
        {
            "model.backbone.init_cfg": None,
            "model.roi_head.bbox_head.num_classes": 7,
            "train_dataloader.dataset.type": "dap.CheckedCocoDataset",
            "train_dataloader.dataset.metainfo": {"classes": ()},
            "train_dataloader.dataset.ann_file": str(path),
            "train_dataloader.dataset.data_prefix.img": f"{tmp_path}/images/",
            "train_dataloader.num_workers": 0,
            "train_dataloader.persistent_workers": False,
            "work_dir": str(tmp_path / "work"),
            **{f"val_{part}": None for part in ("cfg", "dataloader", "evaluator")},
        }
    )
    with pytest.raises(ValueError, match=r"part, .*a COCO file\. Make a store of it"):
        Runner.from_cfg(config).train()
    config.train_dataloader.dataset.part = None
    with pytest.raises(AssertionError, match=r"num_classes.*\(7\).*3"):
        Runner.from_cfg(config).train()
    assert not list((tmp_path / "work").glob("*.pth"))
