"""A store against ground truth: figures worked out by hand."""

import json

import pytest

from dap.evaluation.evaluate import evaluate_boxes, evenly_spread, truth_by_image
from dap.evaluation.ground_truth import read_ground_truth
from tests.support.boxes import LEFT


class TestByHand:
    """Images 1: WHOLE, IoU .5 with LEFT, and LEFT. 2: RIGHT, wrong. 3, broken: no box. 5: right."""

    def test_figures(self, store, truth):
        """Cases 5, right 2. CorLoc: n3 1 / 2, n11 0 / 2, n7 1 / 1: mean 1 / 2.

        Boxes 4: WHOLE takes LEFT, LEFT is its duplicate, RIGHT is wrong, 5's is right: 2 / 4.
        """
        found = evaluate_boxes(store, read_ground_truth(truth))
        assert (found["images"], found["cases"], found["objects"], found["boxes"]) == (5, 5, 5, 4)
        assert found["gt_known_localization"] == 0.4
        assert found["corloc"] == 0.5
        assert (found["precision"], found["recall"]) == (0.5, 0.4)
        assert found["objects_ignored"] == 1
        per_tau = found["per_threshold"]
        assert per_tau["0.2"]["any_box"] == {"0.3": 0.4, "0.5": 0.4, "0.7": 0.2}
        assert per_tau["0.5"]["any_box"] == {"0.3": 0.2, "0.5": 0.2, "0.7": 0.2}
        assert found["best_threshold"]["largest_box"] == {"accuracy": 0.4, "threshold": 0.2}

    def test_classes(self, store, truth):
        found = evaluate_boxes(store, read_ground_truth(truth), worst=2)
        names = [(own["label"], own["name"], own["readable_name"]) for own in found["per_class"]]
        assert names == [(0, "n3", "crane"), (1, "n11", "crane"), (2, "n7", "owl")]
        assert found["worst_classes"] == [
            {"label": 1, "name": "n11", "readable_name": "crane", "corloc": 0}
            | {"missed_images": [2, 3], "found_images": []},
            {"label": 0, "name": "n3", "readable_name": "crane", "corloc": 0.5}
            | {"missed_images": [1], "found_images": [0]},
        ]

    def test_what_has_no_match(self, store, truth):
        found = evaluate_boxes(store, read_ground_truth(truth))
        assert found["matched"] == {
            "images": 5,
            "images_that_failed": 1,
            "truth_images_not_in_store": 2,
            "store_images_not_in_truth": 1,
            "categories_not_in_store": 1,
            "objects_of_categories_not_in_store": 1,
        }
        assert found["truth"] == {
            "layout": "COCO",
            "images": 7,
            "objects": 8,
            "objects_without_area": 0,
        }
        assert found["store"]["thresholds"] == [0.2, 0.5]
        assert json.loads(json.dumps(found)) == found

    def test_class_agnostic(self, store, tmp_path):
        """Ground truth without classes has one class, and unknown categories are no error."""
        path = tmp_path / "localization.txt"
        path.write_text("val/5.JPEG,0,0,50,100\nval/1.JPEG,50,0,100,100\n")
        found = evaluate_boxes(store, read_ground_truth(path))
        assert found["class_agnostic"] is True
        assert (found["corloc"], found["cases"]) == (1, 2)  # 1: WHOLE with RIGHT
        assert [own["label"] for own in found["per_class"]] == [0]
        solution = tmp_path / "solution.csv"
        solution.write_text("ImageId,PredictionString\n5,x1 0 0 50 100\n1,x2 50 0 100 100")
        with pytest.raises(ValueError, match=r"'x1', the store like 'n3'.*--class-agnostic"):
            evaluate_boxes(store, read_ground_truth(solution))
        again = evaluate_boxes(store, read_ground_truth(solution), class_agnostic=True)
        assert again["corloc"] == 1
        assert again["matched"]["objects_of_categories_not_in_store"] == 2

    def test_objects_to_draw(self, store, truth):
        found = truth_by_image(store, read_ground_truth(truth))
        assert list(found) == [0, 1, 2, 3, 4]
        assert found[4].tolist() == [LEFT, [60, 60, 70, 70]]


def test_evenly_spread():
    assert evenly_spread(1000, 4) == [125, 375, 625, 875]
    assert evenly_spread(3) == evenly_spread(3, 3) == [0, 1, 2]
    assert evenly_spread(2, 4) == [0, 1]
    assert evenly_spread(7, 1) == [3]


def test_no_object_of_the_store(store, tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("ImageId,PredictionString\n1,\nx,n3 0 0 50 100")
    with pytest.raises(ValueError, match="1 images of the store are in the ground truth, and none"):
        evaluate_boxes(store, read_ground_truth(path))
