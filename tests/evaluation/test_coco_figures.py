"""Full-precision COCO figures, by hand and against mmdet's rounded ones."""

import json

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric

from dap.evaluation.coco_figures import coco_figures
from dap.testing import make_coco


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_by_hand(tmp_path):
    """Two large objects, one class; one is found at IoU .8, the other not.

    At the thresholds .5, .55, … .8 precision is 1 up to recall .5: 51 of COCO's 101 recall points.
    At .85, .9, .95 it is 0. AP50 = AP75 = 51/101, AP = 7/10 · 51/101.
    """
    truth = {
        "images": [{"id": 1, "width": 400, "height": 400}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 10000, "iscrowd": 0}
            for i, box in enumerate(([0, 0, 100, 100], [200, 200, 100, 100]), start=1)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 80.01], "score": 0.9}]
    figures = coco_figures(write(tmp_path / "t.json", truth), write(tmp_path / "p.json", found))
    assert figures["coco/bbox_mAP_50"] == pytest.approx(51 / 101)
    assert figures["coco/bbox_mAP_75"] == pytest.approx(51 / 101)
    assert figures["coco/bbox_mAP"] == pytest.approx(0.7 * 51 / 101)
    assert figures["coco/bbox_mAP_l"] == pytest.approx(0.7 * 51 / 101)
    assert figures["coco/bbox_mAP_s"] == -1


def test_no_prediction_at_all(tmp_path):
    """One medium object: 0 where there is something to find, -1 where there is not."""
    truth = {
        "images": [{"id": 1, "width": 400, "height": 400}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500,
             "iscrowd": 0}
        ],
    }  # fmt: skip
    figures = coco_figures(write(tmp_path / "t.json", truth), write(tmp_path / "p.json", []))
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    assert figures == dict(
        zip((f"coco/bbox_{n}" for n in names), (0, 0, 0, -1, 0, -1), strict=True)
    )


def test_equal_to_mmdet_but_for_its_rounding(tmp_path):
    truth = make_coco(tmp_path, images=12)
    content = json.loads(truth.read_text())
    rng = np.random.default_rng(0)
    metric = CocoMetric(ann_file=str(truth), outfile_prefix=str(tmp_path / "made"))
    metric.dataset_meta = {"classes": [c["name"] for c in content["categories"]]}
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], float).reshape(-1, 4) + rng.normal(
            0, 3, (len(own), 4)
        )
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([(a["category_id"] - 3) // 4 for a in own], int)
        found = {"bboxes": boxes, "scores": rng.random(len(own)), "labels": labels}
        sample = {"img_id": image["id"], "ori_shape": (96, 128)}
        metric.results.append(({**sample, "width": 128, "height": 96}, {**found, **sample}))
    rounded = metric.compute_metrics(metric.results)
    figures = coco_figures(truth, tmp_path / "made.bbox.json")
    for name, value in figures.items():
        assert rounded[name.removeprefix("coco/")] == pytest.approx(value, abs=0.0005001)
    assert any(round(value, 3) != value for value in figures.values())
