"""Masks of a store, and of score maps, against true ones."""

import json
import re

import numpy as np
import pytest

from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.quality_table import quality_table
from dap.store.masks import encode_mask
from tests.support.boxes import LEFT
from tests.support.stores import image_record, store_of


def mask_of(*corners):
    """A rectangle on 100 x 100 pixels."""
    mask = np.zeros((100, 100), bool)
    x1, y1, x2, y2 = corners
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


class TestMasks:
    """The left half is found by its box, and its upper half by the mask. A crowd lies below right.

    An object without area, left out, stands before them: masks keep to their boxes.
    """

    @pytest.fixture
    def truth(self, tmp_path):
        polygon = [0, 0, 50, 0, 50, 100, 0, 100]
        size = {"height": 100, "width": 100}
        common = {"image_id": 1, "category_id": 1}
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", **size}],
            "categories": [{"id": 1, "name": "n3"}],
            "annotations": [
                {**common, "bbox": [9, 9, 0, 5], "segmentation": [[0, 0, 9, 0, 9, 9]]},
                {**common, "bbox": [0, 0, 50, 100], "segmentation": [polygon]},
                {
                    **common,
                    "bbox": [50, 50, 50, 50],
                    "iscrowd": 1,
                    "segmentation": {"size": [100, 100], "counts": mask_of(50, 50, 100, 100)},
                },
            ],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        return path

    @pytest.fixture
    def store(self, tmp_path):
        record = image_record("1.jpg", (LEFT, 0, 0)) | {"masks": [mask_of(0, 0, 50, 50)]}
        return store_of(tmp_path / "boxes", [record], masks=True)

    def test_figures(self, store, truth):
        found = evaluate_boxes(store, read_ground_truth(truth, with_masks=True))
        assert (found["precision"], found["recall"]) == (1, 1)
        masks = found["masks"]
        assert masks["mean_iou"] == 0.5
        assert (masks["precision"], masks["recall"], masks["corloc"]) == (1, 1, 1)  # .5 is right
        assert masks["average_recall"] == pytest.approx(0.1)
        table = quality_table(found)
        assert re.search(r"masks: mean IoU over the objects +50\.0", table)

    def test_masks_of_another_size_are_refused(self, store, truth):
        content = json.loads(truth.read_text())
        content["images"][0]["width"] = 90
        del content["annotations"][2]  # a run-length encoding, which has a size of its own
        truth.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"1\.jpg: its true masks have \[100, 90\] pixels"):
            evaluate_boxes(store, read_ground_truth(truth, with_masks=True))

    def test_no_figures_unless_both_have_masks(self, store, truth, tmp_path):
        assert "masks" not in evaluate_boxes(store, read_ground_truth(truth))
        alone = store_of(tmp_path / "alone", [image_record("1.jpg", (LEFT, 0, 0))])
        assert "masks" not in evaluate_boxes(alone, read_ground_truth(truth, with_masks=True))

    def test_px_ap(self, store, truth):
        """At 1 the upper left quarter and, ignored, the crowd; at 0 all others, half right.

        P 1 at R 1/2; then 5000 of 7500 pixels: 1/2 + 1/2 · 2/3. Resized, the edges blur.
        """

        def score_maps(items):
            scores = np.zeros((100, 100))
            scores[:50, :50] = scores[50:, 50:] = 1
            return [{0: scores} for _ in items]

        found = evaluate_boxes(store, read_ground_truth(truth, with_masks=True), score_maps)
        assert found["score_maps"]["px_ap"] == pytest.approx(1 / 2 + 1 / 3, abs=0.02)
        assert "PxAP of the maps" in quality_table(found)
