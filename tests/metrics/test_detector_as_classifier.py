import os
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from dap.metrics import DetectorAsClassifier

CLASSES = ("blue", "green", "red")


def sample(gt_label, detections):
    """A detector's output.

    Args:
        gt_label: True class, or several.
        detections: (label, score) of each object.
    """
    labels, scores = zip(*detections, strict=True) if detections else ((), ())
    predicted = InstanceData(
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores, dtype=torch.float32),
    )
    metainfo = {"img_path": "a.jpg", "gt_label": gt_label}
    return DetDataSample(pred_instances=predicted, metainfo=metainfo)


def evaluate(*samples, classes=CLASSES, **settings):
    """The results, by MMEngine's evaluator as a runner builds it."""
    evaluator = Evaluator({"type": "dap.DetectorAsClassifier", **settings})
    evaluator.dataset_meta = {"classes": classes}
    evaluator.process(samples)
    results = evaluator.evaluate(len(samples))
    return {name.removeprefix("classification/"): value for name, value in results.items()}


class TestScores:
    def test_sum_beats_a_higher_single_score(self):
        detections = [(0, 0.75), (1, 0.5), (1, 0.5)]
        assert evaluate(sample(1, detections))["top1"] == 100
        assert evaluate(sample(0, detections))["top1"] == 0

    def test_fractions_are_not_rounded(self):
        right, wrong = sample(0, [(0, 0.5)]), sample(1, [(0, 0.5)])
        assert evaluate(right, wrong, wrong) == {
            "top1": 100 / 3,
            "top5": 100 / 3,
            "images_without_detection": 0,
        }

    def test_topk(self):
        detections = [(0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)]
        samples = [sample(label, detections) for label in range(4)]
        results = evaluate(*samples, classes=tuple("abcd"), topk=(1, 2, 3))
        assert [results[f"top{k}"] for k in (1, 2, 3)] == [25, 50, 75]

    def test_more_k_than_classes(self):
        """Class 2 has no detection, and is not predicted for want of others."""
        detections = [(0, 0.9), (1, 0.8)]
        assert evaluate(sample(1, detections))["top5"] == 100
        assert evaluate(sample(2, detections))["top5"] == 0

    def test_image_without_detections(self):
        assert evaluate(sample(0, []), sample(0, [(0, 0.5)]), sample(1, [])) == {
            "top1": 100 / 3,
            "top5": 100 / 3,
            "images_without_detection": 2,
        }

    @pytest.mark.parametrize("label", [0, 1, 2])
    def test_equal_scores_are_wrong_whatever_the_number(self, label):
        detections = [(0, 0.5), (1, 0.25), (1, 0.25), (2, 0.5)]
        results = evaluate(sample(label, detections), topk=(1, 2, 3))
        assert [results[f"top{k}"] for k in (1, 2, 3)] == [0, 0, 100]

    def test_score_of_zero_is_a_detection(self):
        results = evaluate(sample(2, [(0, 0.5), (2, 0.0)]), topk=(1, 2))
        assert [results["top1"], results["top2"]] == [0, 100]

    def test_several_labels(self):
        detections = [(0, 0.5), (1, 0.9), (2, 0.9)]
        assert evaluate(sample([1, 2], detections))["top1"] == 100  # a tie of right classes
        assert evaluate(sample([0, 1], detections))["top1"] == 0
        assert evaluate(sample([0, 1], detections), topk=[2])["top2"] == 100

    def test_classes_without_names(self):
        assert evaluate(sample(7, [(7, 0.5)]), classes=None)["top1"] == 100

    def test_compute_metrics_changes_nothing(self):
        results = [{"rank": 2, "detections": 3}, {"rank": None, "detections": 0}]
        metric = DetectorAsClassifier(topk=(1, 2))
        assert metric.compute_metrics(results) == metric.compute_metrics(results)
        assert results == [{"rank": 2, "detections": 3}, {"rank": None, "detections": 0}]


class TestErrors:
    @pytest.mark.parametrize("topk", [(), (0, 1), (-1,)])
    def test_topk(self, topk):
        with pytest.raises(ValueError, match="expected numbers of 1 or more"):
            DetectorAsClassifier(topk=topk)

    def test_no_label(self):
        unlabelled = sample(0, [(0, 0.5)])
        unlabelled.set_metainfo({"gt_label": None})
        with pytest.raises(ValueError, match=r"a\.jpg has no gt_label\. Add it to the meta_keys"):
            evaluate(unlabelled)
        with pytest.raises(ValueError, match=r"gt_label of a\.jpg is empty"):
            evaluate(sample([], [(0, 0.5)]))

    def test_no_predictions(self):
        with pytest.raises(ValueError, match=r"a\.jpg has no pred_instances"):
            evaluate(DetDataSample(metainfo={"img_path": "a.jpg", "gt_label": 0}))
        with pytest.raises(ValueError, match="no image has been processed"):
            evaluate()

    @pytest.mark.parametrize(
        ("gt_label", "detected", "message"),
        [
            (3, 0, "gt_label 3; the data set has 3 classes"),
            ([0, -1], 0, "gt_label -1"),
            (0, 3, "predicted label 3; the data set has 3 classes"),
        ],
    )
    def test_label_out_of_range(self, gt_label, detected, message):
        with pytest.raises(ValueError, match=message):
            evaluate(sample(gt_label, [(detected, 0.5)]))

    @pytest.mark.parametrize("score", [float("nan"), float("inf")])
    def test_score_that_is_not_finite(self, score):
        with pytest.raises(ValueError, match="not finite"):
            evaluate(sample(0, [(0, score)]))


# Image i is right for i = 0, 1 and 3 of five, and 4 has no detections.
FIVE = [(0, [(0, 0.9)]), (1, [(1, 0.9)]), (2, [(0, 0.9)]), (0, [(0, 0.9)]), (1, [])]


def evaluate_a_part(rank, folder):
    os.chdir(folder)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metric = DetectorAsClassifier()
    metric.dataset_meta = {"classes": CLASSES}
    for index in ((0, 2, 4), (1, 3, 0))[rank]:  # DefaultSampler fills up with the first
        metric.process(None, [sample(*FIVE[index]).to_dict()])
    results = metric.evaluate(size=5)
    Path(f"results{rank}").write_text(repr(results))
    torch.distributed.barrier()
    os._exit(0)  # in a forked process gloo may wait forever for its threads when it is destroyed


def test_two_processes_and_an_odd_number_of_images(tmp_path):
    torch.multiprocessing.start_processes(
        evaluate_a_part, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    alone = evaluate(*[sample(*image) for image in FIVE])
    assert alone == {"top1": 60, "top5": 60, "images_without_detection": 1}
    expected = {f"classification/{name}": value for name, value in alone.items()}
    for rank in (0, 1):
        assert (tmp_path / f"results{rank}").read_text() == repr(expected)
