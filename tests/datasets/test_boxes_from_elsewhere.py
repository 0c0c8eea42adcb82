"""Boxes that SAM, CutLER or Grounding DINO have made, as COCO files, go through Steps 3 and 4."""

import json

import cv2
import pytest
import torch

from dap.datasets import CheckedCocoDataset, PseudoBoxDataset
from dap.store.convert import coco_to_store
from dap.testing import make_class_folders, make_voc
from tests.support.workplace import (
    CONFIGS,
    SMALL_FASTER_RCNN,
    SMALL_STEP_3,
    VOC_OPTIONS,
    Place,
    from_detector,
)

COLOURS = ("blue", "green", "red")


def sam(image, number, box):
    """Regions without names, as runs of masks, with two scores of quality."""
    height, width = image["height"], image["width"]
    return {
        "id": number,
        "image_id": image["id"],
        "category_id": 1,
        "bbox": box,
        "area": 0.7 * box[2] * box[3],
        "segmentation": {"size": [height, width], "counts": "Pb0"},
        "predicted_iou": 0.93,
        "stability_score": 0.97,
        "iscrowd": 0,
    }


def cutler(image, number, box):
    """One class, fg; the score and the size of the image stand in each annotation."""
    size = {"height": image["height"], "width": image["width"]}
    return {**sam(image, number, box), **size, "score": 0.8}


def grounding_dino(image, number, box):
    """Phrases as categories and scores; neither area nor iscrowd nor ids."""
    label = COLOURS.index(image["file_name"].split("/")[0])
    return {"image_id": image["id"], "category_id": label, "bbox": box, "score": 0.41}


SOURCES = {
    "sam": (sam, ["object"], 1),
    "cutler": (cutler, ["fg"], 1),
    "grounding_dino": (grounding_dino, [f"a {name} thing" for name in COLOURS], 0),
}


def coco_file(root, folder, source):
    """Write the boxes of a source for all images below a folder: one each, 3.5 px from the edge."""
    make, names, first = SOURCES[source]
    images, annotations = [], []
    for path in sorted(folder.rglob("*.jpg")):
        height, width = cv2.imread(str(path)).shape[:2]
        name = path.relative_to(folder).as_posix()
        images.append({"id": len(images), "file_name": name, "height": height, "width": width})
        box = [3.5, 3.5, width - 7.25, height - 7.25]
        annotations.append(make(images[-1], len(images), box))
    categories = [{"id": i, "name": name} for i, name in enumerate(names, first)]
    path = root / f"{source}.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.mark.parametrize("source", SOURCES)
def test_samples_are_the_same_from_the_file_and_from_its_store(tmp_path, source):
    folder = make_class_folders(tmp_path / "images", 2)
    path = coco_file(tmp_path, folder, source)
    coco_to_store(path, tmp_path / "store")
    settings = {
        "data_prefix": {"img": f"{folder}/"},
        "metainfo": {"classes": ()},
        "filter_cfg": {"filter_empty_gt": True},
        "pipeline": [],
    }
    by_file = CheckedCocoDataset(ann_file=str(path), **settings)
    by_store = PseudoBoxDataset(ann_file=str(tmp_path / "store"), **settings)
    assert by_store.metainfo["classes"] == by_file.metainfo["classes"] == tuple(SOURCES[source][1])
    assert len(by_store) == len(by_file) == 6
    for index in range(6):
        one, two = by_file.get_data_info(index), by_store.get_data_info(index)
        assert one["img_path"] == two["img_path"]
        (a,), (b,) = one["instances"], two["instances"]
        assert a["bbox_label"] == b["bbox_label"]
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-6)
        assert b["bbox"][:2] == [3.5, 3.5]


def test_steps_3_and_4_take_them(tmp_path):
    """The commands of the README: convert, pre-train, fine-tune on VOC from what moved."""
    place = Place(tmp_path)
    folder = make_class_folders(tmp_path / "data" / "photographs", 2)
    make_voc(
        tmp_path / "data" / "VOCdevkit" / "VOC2007",
        {"trainval": 2, "test": 2},
        ("aeroplane", "bicycle"),
    )
    path = coco_file(tmp_path, folder, "cutler")
    place.tool("convert_annotations", path, "work_dirs/boxes_cutler")
    place.train(
        CONFIGS / "pretrain" / "faster-rcnn_r50_fpn_40k_in1k-boxes.py",
        "pretrain",
        *SMALL_FASTER_RCNN,
        *SMALL_STEP_3,
        "model.backbone.init_cfg=None",
        "train_dataloader.dataset.ann_file=work_dirs/boxes_cutler/manifest.json",
        "train_dataloader.dataset.data_prefix.img=data/photographs/",
        "model.roi_head.bbox_head.num_classes=1",
        "train_cfg.max_iters=2",
    )
    checkpoint = tmp_path / "work_dirs" / "pretrain" / "iter_2.pth"
    assert torch.load(checkpoint)["meta"]["dataset_meta"]["classes"] == ("fg",)
    output = place.train(
        CONFIGS / "finetune" / "voc07" / "faster-rcnn_r50-dap-in1k_fpn_14e_voc07.py",
        "finetune",
        *SMALL_FASTER_RCNN,
        *VOC_OPTIONS,
        *from_detector(checkpoint),
    )
    assert "re-initialised because category-dependent: roi_head.bbox_head.fc_cls" in output
    assert "voc_area/mAP" in output
