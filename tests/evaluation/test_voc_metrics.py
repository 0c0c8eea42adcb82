"""mmdet's VOC metrics as configs/_base_/datasets/voc07.py sets them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mean_average_precision.mean_average_precision_2d import MeanAveragePrecision2d
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from dap.testing import draw_image, write_image, write_voc_annotation

BASE = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "datasets" / "voc07.py"


@pytest.fixture
def config():
    init_default_scope("mmdet")
    return Config.fromfile(str(BASE))


def evaluate(config, classes, samples):
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = {"classes": classes, "dataset_type": "VOC2007"}
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def instances(boxes, labels, scores=None):
    found = InstanceData(
        bboxes=torch.tensor(np.reshape(boxes, (-1, 4)), dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    if scores is not None:
        found.scores = torch.tensor(scores, dtype=torch.float32)
    return found


def write_voc(root, images):
    """Write annotations as VOC has them.

    Args:
        root: VOCdevkit, to be made.
        images: Of each image the objects: class, whether difficult, xyxy half-open.
    """
    folder = root / "VOC2007"
    for stem, objects in images.items():
        names = [name for name, _, _ in objects]
        write_image(folder / "JPEGImages" / f"{stem}.jpg", draw_image((80, 100), [], []))
        path = folder / "Annotations" / f"{stem}.xml"
        write_voc_annotation(path, (80, 100), [box for _, _, box in objects], names)
        head, *rest = path.read_text().split("<difficult>0")
        flags = [f"<difficult>{int(difficult)}" for _, difficult, _ in objects]
        path.write_text(head + "".join(map("".join, zip(flags, rest, strict=True))))
    listing = folder / "ImageSets" / "Main" / "test.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{stem}\n" for stem in images))


def test_by_hand(config, tmp_path):
    """Precision and recall worked out on paper, from XML files to the two figures.

    There are three aeroplanes to find, g1, g2, g3; d is difficult. In order of their scores:

    ====  ===================================  =========  ======
    .9    g1                                   1 of 1     1 of 3
    .85   d: counts neither way                1 of 1     1 of 3
    .8    d once more: neither way             1 of 1     1 of 3
    .7    g1 once more: false                  1 of 2     1 of 3
    .6    half of g3, IoU .5 exactly: right    2 of 3     2 of 3
    .5    where nothing is: false              2 of 4     2 of 3
    ====  ===================================  =========  ======

    Area: recall 0 to 1/3 at precision 1, to 2/3 at 2/3, AP = 1/3 + 2/9 = 5/9.
    11 points: 0, .1, .2, .3 at 1, then .4, .5, .6 at 2/3, then 0, AP = (4 + 2) / 11.
    The one bicycle is found, AP = 1; the other 18 classes have no object and do not count.
    """
    plane = "aeroplane"
    g1, g2, g3, d = (10, 10, 30, 30), (50, 10, 90, 50), (10, 40, 20, 50), (60, 40, 80, 70)
    bicycle = (30, 50, 60, 75)
    objects = {
        "000001": [(plane, False, g1), ("bicycle", False, bicycle), (plane, False, g2)],
        "000002": [(plane, True, d), (plane, False, g3)],
    }
    write_voc(tmp_path, objects)
    # In the pixels of mmdet's VOC sets: from 0, both ends inside the box.
    first = [(10, 10, 29, 29), (11, 10, 29, 29), (70, 60, 89, 79), (30, 50, 59, 74)]
    second = [(60, 40, 79, 69), (60, 42, 79, 69), (10, 40, 14, 49)]
    detections = [
        instances(first, [0, 0, 0, 1], [0.9, 0.7, 0.5, 0.4]),
        instances(second, [0, 0, 0], [0.85, 0.8, 0.6]),
    ]
    dataset = DATASETS.build({**config.val_dataloader.dataset, "data_root": f"{tmp_path}/"})
    samples = [item["data_samples"] for item in dataset]
    for sample, found in zip(samples, detections, strict=True):
        sample.pred_instances = found
    metrics = evaluate(config, dataset.metainfo["classes"], samples)
    assert metrics["voc_area/mAP"] == pytest.approx((5 / 9 + 1) / 2, abs=1e-6)
    assert metrics["voc_07/mAP"] == pytest.approx((6 / 11 + 1) / 2, abs=1e-6)
    # The other figure is rounded.
    assert metrics["voc_area/AP50"] == pytest.approx(0.778, abs=1e-6)


def random_image(rng, classes):
    """Objects of one image, and detections: some near, some doubled, some anywhere.

    Returns:
        Rows (x1, y1, x2, y2, class) and (x1, y1, x2, y2, class, score).
    """
    objects = np.column_stack([random_boxes(rng, 6), rng.integers(0, classes, 6)])
    near = objects[rng.integers(0, 6, 8)]
    near[:, :4] += rng.normal(0, 6, (8, 4))
    stray = np.column_stack([random_boxes(rng, 4), rng.integers(0, classes, 4)])
    scores = rng.random(12).astype(np.float32)
    return objects, np.column_stack([np.concatenate([near, stray]), scores])


def random_boxes(rng, number):
    corners = rng.integers(0, 100, (number, 2))
    return np.column_stack([corners, corners + rng.integers(20, 60, (number, 2))]).astype(float)


def reference(images, classes, **settings):
    """Mean AP by the package mean-average-precision, whose IoU has VOC's extra pixel as well.

    No object is difficult or a crowd: it counts difficult ones among those to be found, and mixes
    them up if an image has several objects of a class.
    """
    metric = MeanAveragePrecision2d(classes)
    for objects, detections in images:
        metric.add(detections, np.pad(objects, ((0, 0), (0, 2))))
    return metric.value(iou_thresholds=0.5, **settings)["mAP"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_by_another_implementation(config, seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng, classes=3) for _ in range(20)]
    samples = [
        DetDataSample(
            gt_instances=instances(objects[:, :4], objects[:, 4]),
            ignored_instances=instances([], []),
            pred_instances=instances(found[:, :4], found[:, 4], found[:, 5]),
        )
        for objects, found in images
    ]
    metrics = evaluate(config, tuple("abc"), samples)
    area = reference(images, classes=3)
    eleven_points = reference(images, classes=3, recall_thresholds=np.arange(0, 1 + 1e-3, 0.1))
    assert metrics["voc_area/mAP"] == pytest.approx(area, abs=1e-6)
    assert metrics["voc_07/mAP"] == pytest.approx(eleven_points, abs=1e-6)
    assert abs(area - eleven_points) > 1e-4
    assert 0.2 < area < 0.8
