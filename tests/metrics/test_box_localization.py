"""dap.BoxLocalization on samples of a detector, by MMEngine's evaluator."""

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from dap.testing import make_coco
from tests.support.boxes import LEFT, RIGHT, labelled


def sample(detections, objects, ignored=(), **metainfo):
    """A detector's output with its ground truth: rows of x1, y1, x2, y2, label, and score."""
    boxes = torch.tensor(detections, dtype=torch.float32).reshape(-1, 6)

    def instances(rows):
        values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        return InstanceData(bboxes=values[:, :4], labels=values[:, 4].long())

    return DetDataSample(
        metainfo={"img_path": "a.jpg", **metainfo},
        pred_instances=InstanceData(
            bboxes=boxes[:, :4], labels=boxes[:, 4].long(), scores=boxes[:, 5]
        ),
        gt_instances=instances(objects),
        ignored_instances=instances(list(ignored)),
    )


def evaluate(*samples, **settings):
    """The results, by MMEngine's evaluator as a runner builds it."""
    evaluator = Evaluator({"type": "dap.BoxLocalization", **settings})
    evaluator.dataset_meta = {"classes": ("a", "b")}
    evaluator.process(samples)
    results = evaluator.evaluate(len(samples))
    return {name.removeprefix("localization/"): value for name, value in results.items()}


class TestMetric:
    def test_by_hand(self):
        """Of three boxes one is right, one lies on an ignored object, one is wrong."""
        detections = [[*LEFT, 0, 0.9], [210, 0, 220, 10, 0, 0.8], [*RIGHT, 1, 0.2]]
        one = sample(
            detections, labelled(0, LEFT), labelled(0, [200, 0, 300, 100]), ori_shape=(100, 300)
        )
        nothing = sample([[*LEFT, 0, 0.9]], [])
        assert evaluate(one, nothing) == {
            "gt_known_localization": 1,
            "corloc": 1,
            "precision": 0.5,
            "recall": 1,
            "average_recall": 1,
            "precision_small": -1,
            "recall_small": -1,
            "precision_medium": 0.5,
            "recall_medium": 1,
            "precision_large": -1,
            "recall_large": -1,
            "images_without_truth": 1,
        }
        assert evaluate(one, score_thr=0.5)["precision"] == 1

    def test_class_agnostic(self):
        one = sample([[*LEFT, 1, 0.9]], labelled(0, LEFT))
        assert evaluate(one)["corloc"] == 0
        assert evaluate(one, class_agnostic=True)["corloc"] == 1

    def test_instances_come_first(self):
        """Instances are always in pixels of the original image, so they are preferred."""
        instances = [
            {"bbox": RIGHT, "bbox_label": 0, "ignore_flag": 0},
            {"bbox": LEFT, "bbox_label": 0, "ignore_flag": 1},
        ]
        detections = [[*RIGHT, 0, 0.9], [0, 0, 20, 100, 0, 0.8]]
        found = evaluate(sample(detections, labelled(0, LEFT), instances=instances))
        assert (found["corloc"], found["precision"], found["recall"]) == (1, 1, 1)

    def test_two_rounds(self):
        """Results of an earlier evaluation are forgotten."""
        evaluator = Evaluator({"type": "dap.BoxLocalization"})
        for label in (0, 1):
            evaluator.process([sample([[*LEFT, label, 0.9]], labelled(0, LEFT))])
            assert evaluator.evaluate(1)["localization/corloc"] == 1 - label

    @pytest.mark.parametrize("scale", [(48, 32), (300, 200)])
    def test_frame_of_a_pipeline(self, tmp_path, scale):
        """mmdet's own order of transforms leaves the truth where predictions are."""
        register_all_modules(init_default_scope=True)
        annotations = make_coco(tmp_path, images=3)
        steps = ["LoadImageFromFile", "Resize", "LoadAnnotations", "PackDetInputs"]
        options = {
            "Resize": {"scale": scale, "keep_ratio": False},
            "LoadAnnotations": {"with_bbox": True},
        }

        def samples(order):
            dataset = CocoDataset(
                ann_file=str(annotations),
                data_prefix={"img": str(tmp_path / "images")},
                metainfo={"classes": ("blue", "green", "red")},
                pipeline=[{"type": name, **options.get(name, {})} for name in order],
                test_mode=True,
            )
            for index in range(len(dataset)):
                packed = dataset[index]["data_samples"]
                objects = dataset.get_data_info(index)["instances"]
                rows = torch.tensor([o["bbox"] for o in objects]).reshape(-1, 4)
                labels = torch.tensor([o["bbox_label"] for o in objects], dtype=torch.long)
                packed.pred_instances = InstanceData(
                    bboxes=rows, labels=labels, scores=torch.ones(len(rows))
                )
                yield packed

        found = evaluate(*samples(steps))
        assert (found["corloc"], found["precision"], found["average_recall"]) == (1, 1, 1)
        steps[1:3] = steps[2:0:-1]
        if scale == (300, 200):
            with pytest.raises(ValueError, match=r"px: it was resized with the image. Put Load"):
                evaluate(*samples(steps))

    def test_errors(self):
        with pytest.raises(ValueError, match=r"a\.jpg has no pred_instances"):
            evaluate(DetDataSample(metainfo={"img_path": "a.jpg"}))
        bare = sample([], [])
        del bare.gt_instances
        with pytest.raises(ValueError, match=r"a\.jpg has no ground truth: put .*LoadAnnotations"):
            evaluate(bare)
        with pytest.raises(ValueError, match="no image has been processed"):
            evaluate()
        with pytest.raises(ValueError, match=r"score_thr is 50; expected one in \[0, 1\]"):
            evaluate(sample([], []), score_thr=50)
