"""Masks from Step 2 to stores, COCO files, and mmdet's samples."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mmdet.utils import register_all_modules
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from pycocotools import mask as coco_mask

from dap.datasets import CheckedCocoDataset, PseudoBoxDataset
from dap.pseudo_boxes import (
    Execution,
    PseudoBoxSettings,
    PseudoBoxStore,
    generate_pseudo_boxes,
    select_boxes,
)
from dap.store import coco_checks
from dap.store.convert import coco_to_store, store_to_coco
from dap.store.masks import counts_of, decode_mask, encode_mask
from dap.store.shard import SCHEMA, encode_shard
from dap.testing import make_class_folders
from dap.visualization.inspection import inspect_boxes
from dap.visualization.store_pictures import StorePictures, stored_image
from tests.support.planted import planted_classifier

RANDOM = np.random.default_rng(0).random((7, 11)) < 0.4
LOAD = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_class_folders(tmp_path_factory.mktemp("images"), 2)


@pytest.fixture(scope="module")
def generate(images, tmp_path_factory):
    """Make a run of six images in shards of four; return its folder."""

    def run(masks, rule="extent", nms_iou=0.8):
        dataset = CustomDataset(data_root=str(images))
        settings = PseudoBoxSettings((112, 160), rule=rule, nms_iou=nms_iou, masks=masks)
        out = tmp_path_factory.mktemp("run") / "boxes"
        execution = Execution(num_workers=0, shard_size=4)
        with DefaultScope.overwrite_default_scope("mmpretrain"):
            model = planted_classifier()
        generate_pseudo_boxes(model, dataset, out, settings, None, execution)
        return out

    return run


@pytest.fixture(scope="module")
def with_masks(generate):
    return generate(True)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(coco_checks, "print_log", lambda message, *_, **__: said.append(message))
    return said


def records(folder):
    return [record for shard in PseudoBoxStore(folder).shards for record in shard.records()]


def test_counts_are_read_back():
    np.testing.assert_array_equal(decode_mask(encode_mask(RANDOM), (7, 11)), RANDOM)


@pytest.mark.parametrize(
    "given",
    [
        [[2, 1, 5, 1, 5, 3, 2, 3]],
        {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]},
        {"size": [4, 6], "counts": encode_mask(np.pad(np.ones((2, 3), bool), ((1, 1), (2, 1))))},
    ],
    ids=["polygon", "runs", "compressed"],
)
def test_segmentations_of_all_kinds(given):
    """The rectangle x from 2 to 5, y from 1 to 3; runs go down the columns."""
    mask = decode_mask(counts_of(given, (4, 6)), (4, 6))
    assert np.argwhere(mask).tolist() == [[y, x] for y in (1, 2) for x in (2, 3, 4)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": [6, 4], "counts": [24]}, r"expected size \[4, 6\], found \[6, 4\]"),
        ({"size": [4, 6], "counts": [20]}, "counts of 24 pixels in all"),
        ([[1, 1, 2, 2]], "with 3 corners or more"),
        ([], "with 3 corners or more"),
        ("mask.png", "with 3 corners or more"),
    ],
)
def test_other_segmentations_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        counts_of(given, (4, 6))


def test_as_many_masks_as_boxes():
    record = {"id": 1, "file_name": "a.jpg", "boxes": [[0, 0, 1, 1, 0, 0]], "masks": []}
    with pytest.raises(ValueError, match=r"a\.jpg: 0 masks for 1 boxes"):
        encode_shard([record], {}, with_masks=True)


@pytest.mark.parametrize("rule", ["extent", "paper", "release"])
def test_masks_change_nothing_else(generate, rule):
    """Boxes are the same; without masks neither settings nor files speak of them."""
    alone, found = generate(False, rule), generate(True, rule)
    store = PseudoBoxStore(alone)
    assert not store.has_masks
    assert "masks" not in (alone / "manifest.json").read_text()
    assert "segmentation" not in (alone / "annotations.json").read_text()
    assert store.shards[0]._batch.schema.equals(SCHEMA)
    assert not PseudoBoxSettings.from_store(store).masks
    assert PseudoBoxSettings.from_store(PseudoBoxStore(found)).masks
    for before, now in zip(records(alone), records(found), strict=True):
        masks = now.pop("masks")
        assert before == now
        assert len(masks) == len(now["boxes"]) > 0


def test_masks_are_the_painted_rectangles(with_masks, images):
    """Cells have 16 pixels of a view that is larger than the image: half a cell is 8 at most."""
    from cv2 import imread

    ious = []
    for record in records(with_masks):
        image = imread(str(images / record["file_name"])).astype(int)
        painted = np.ptp(image, axis=2) > 80
        size_hw = record["height"], record["width"]
        masks = [decode_mask(mask, size_hw) for mask in record["masks"]]
        ious.append(max((m & painted).sum() / (m | painted).sum() for m in masks))
    assert min(ious) > 0.75


def test_coco_file_and_back(with_masks, tmp_path):
    content = json.loads((with_masks / "annotations.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    given = [mask for record in records(with_masks) for mask in record["masks"]]
    for item, mask in zip(content["annotations"], given, strict=True):
        assert item["segmentation"] == {"size": sizes[item["image_id"]], "counts": mask}
        assert coco_mask.decode(item["segmentation"]).shape == tuple(sizes[item["image_id"]])
    coco_to_store(with_masks / "annotations.json", tmp_path / "streamed")
    store_to_coco(tmp_path / "streamed", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (with_masks / "annotations.json").read_bytes()
    (tmp_path / "held.json").write_text(json.dumps(content))
    coco_to_store(tmp_path / "held.json", tmp_path / "held")
    for folder in ("streamed", "held"):
        assert PseudoBoxStore(tmp_path / folder).has_masks
        found = records(tmp_path / folder)
        assert [r["masks"] for r in found] == [r["masks"] for r in records(with_masks)]


def test_file_that_lacks_some_masks(with_masks, tmp_path, warnings):
    """They are left out, and said to be."""
    content = json.loads((with_masks / "annotations.json").read_text())
    del content["annotations"][0]["segmentation"]
    (tmp_path / "some.json").write_text(json.dumps(content))
    coco_to_store(tmp_path / "some.json", tmp_path / "some")
    assert not PseudoBoxStore(tmp_path / "some").has_masks
    count = len(content["annotations"]) - 1
    assert any(
        "are left out:" in line and f"segmentation (annotation): {count}" in line
        for line in warnings
    )


def test_bad_mask_of_a_file_is_named(with_masks, tmp_path):
    content = json.loads((with_masks / "annotations.json").read_text())
    content["annotations"][1]["segmentation"]["size"] = [1, 1]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="annotation 2: segmentation: expected size"):
        coco_to_store(tmp_path / "bad.json", tmp_path / "bad")


@pytest.mark.parametrize("rule", ["extent", "paper"])
def test_selected_boxes_keep_their_masks(generate, tmp_path, rule):
    """The files are those of a run with these settings."""
    source, wanted = generate(True, rule, None), generate(True, rule, 0.5)
    select_boxes(source, tmp_path / "selected", nms_iou=0.5)
    assert records(tmp_path / "selected") == records(wanted)
    names = [sorted(path.name for path in (f / "shards").iterdir())
             for f in (tmp_path / "selected", wanted)]  # fmt: skip
    assert names[0] == names[1]


def test_galleries_draw_them(with_masks, images, tmp_path):
    store = PseudoBoxStore(with_masks)
    pictures, image = StorePictures(store, images), stored_image(store, 0)
    differs = pictures.tile(image) != pictures.tile(replace(image, masks=None))
    assert 50 < differs.any(axis=2).sum() < 5000
    page = inspect_boxes(store, tmp_path / "page", None, images, count=1)
    assert "thin outlines: masks" in page.read_text()


class TestSamples:
    @pytest.fixture(autouse=True)
    def mmdet_scope(self, with_masks, images):
        register_all_modules()
        self.folder, self.images = with_masks, images

    def build(self, kind, name, *pipeline, **more):
        folder = more.pop("folder", self.folder)
        return kind(
            ann_file=str(folder / name),
            data_prefix={"img": f"{self.images}/"},
            metainfo={"classes": ()},
            pipeline=[{"type": "LoadImageFromFile"}, *pipeline],
            **more,
        )

    def both(self, *pipeline):
        return (
            self.build(PseudoBoxDataset, "manifest.json", *pipeline),
            self.build(CheckedCocoDataset, "annotations.json", *pipeline),
        )

    def test_store_and_file_give_the_same(self):
        ours, stock = self.both(LOAD, {"type": "Resize", "scale": (64, 64), "keep_ratio": True})
        assert len(ours) == len(stock) == 6
        for index in range(len(ours)):
            assert ours.get_data_info(index)["instances"] == stock.get_data_info(index)["instances"]
            first, second = ours[index], stock[index]
            np.testing.assert_array_equal(first["gt_masks"].masks, second["gt_masks"].masks)
            assert first["gt_masks"].masks.shape == (len(first["gt_bboxes"]), *first["img_shape"])
            assert not first["gt_ignore_flags"].any()

    def test_boxes_alone_may_be_loaded(self):
        ours, _ = self.both({"type": "LoadAnnotations", "with_bbox": True})
        assert "gt_masks" not in ours[0]

    def test_polygons_are_refused(self):
        """mmdet would ignore each object without a word."""
        for kind, name in ((PseudoBoxDataset, "manifest.json"),
                           (CheckedCocoDataset, "annotations.json")):  # fmt: skip
            with pytest.raises(ValueError, match=r"poly2mask=False.*Set poly2mask=True"):
                self.build(kind, name, {**LOAD, "poly2mask": False})

    def test_masks_that_are_not_there_are_refused(self, generate):
        alone = generate(False)
        for kind, name in ((PseudoBoxDataset, "manifest.json"),
                           (CheckedCocoDataset, "annotations.json")):  # fmt: skip
            with pytest.raises(ValueError, match=r"with_mask=True, and not each box has a mask"):
                self.build(kind, name, LOAD, folder=alone)


def test_setting_and_flag(monkeypatch):
    with pytest.raises(ValueError, match="masks: expected True or False, found 1"):
        PseudoBoxSettings(masks=1)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    import generate_pseudo_boxes as tool
    from mmengine.config import Config

    command = ["tool", "config", "checkpoint", "--out", "out"]
    for flags, expected in (([], None), (["--masks"], True)):
        monkeypatch.setattr(sys, "argv", [*command, *flags])
        config = Config({"pseudo_boxes": {}})
        tool.merge_options(config, {}, {"masks": tool.parse_args().masks})
        assert config.pseudo_boxes.get("masks") is expected
