"""Score maps of a store's images against ground truth, one after the other."""

import numpy as np
import pytest

from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.max_box_accuracy import MaxBoxAccuracy
from dap.evaluation.quality_table import quality_table


def of_each(score_map):
    """Turn a function of one map, which may raise OSError, into one of many images."""

    def score_maps(items):
        for name, labels in items:
            try:
                yield {label: score_map(name, label) for label in labels}
            except OSError as error:
                yield f"OSError: {error}"

    return score_maps


class TestMaps:
    def test_by_hand(self, store, truth):
        """The left half is 1, of image 2 the right one; the right half of image 1 is .3.

        So image 1 is LEFT at τ .5 and all but WHOLE at τ .2, with an IoU of just below a half: 113
        x 222 of 224 x 224 px. Image 2 is wrong, 3 and 5 are right, the broken one has no map. At
        the lowest thresholds all maps are WHOLE (cubic resizing goes below 0 beside the edge, so
        that 0 is not the smallest), which is right at IoU .3.
        """
        asked = []

        def score_map(file_name, label):
            asked.append((file_name, label))
            values = np.zeros((100, 100), np.float32)
            values[:, 50:] = 0.3 if file_name == "a/1.JPEG" else 0
            values[:, :50] = 1
            values[0, 99] = 0  # so that the smallest is 0
            return values[:, ::-1] if file_name == "a/2.JPEG" else values

        found = evaluate_boxes(store, read_ground_truth(truth), of_each(score_map))
        names = ["a/1.JPEG", "a/2.JPEG", "b/3.JPEG", "c/5.JPEG"]
        assert asked == list(zip(names, [0, 0, 1, 2], strict=True))
        maps = found["score_maps"]
        assert (maps["images"], maps["max_box_acc"]) == (4, 0.75)
        assert maps["max_box_acc_v2_by_iou"] == {"0.3": 1, "0.5": 0.75, "0.7": 0.75}
        assert maps["max_box_acc_v2"] == pytest.approx(2.5 / 3)
        at_low = maps["at_fixed_thresholds"]["0.2"]["all_contours_by_iou"]
        assert (at_low["0.3"], at_low["0.7"]) == (0.75, 0.5)
        assert maps["at_fixed_thresholds"]["0.5"]["all_contours_by_iou"]["0.7"] == 0.75
        by_class = {own["name"]: own["max_box_acc"] for own in maps["per_class"]}
        assert by_class == {"n3": 0.5, "n11": 1, "n7": 1}
        table = quality_table(found)
        assert f"MaxBoxAcc of the maps ({maps['thresholds']['max_box_acc']})      75.0" in table
        assert "τ 0.5         20.0  20.0  20.0        20.0  20.0  20.0        75.0  75.0" in table

    def test_each_map_is_judged_before_the_next_is_made(self, store, truth, monkeypatch):
        """Maps of millions of images do not fit into memory together."""
        events, add = [], MaxBoxAccuracy.add

        def score_map(file_name, label):
            events.append("made")
            return np.eye(100)

        def judged(*arguments):
            events.append("judged")
            add(*arguments)

        monkeypatch.setattr(MaxBoxAccuracy, "add", judged)
        evaluate_boxes(store, read_ground_truth(truth), of_each(score_map), progress=True)
        assert events == ["made", "judged"] * 4

    def test_classes_are_needed(self, store, tmp_path):
        path = tmp_path / "localization.txt"
        path.write_text("1.JPEG,0,0,50,100")
        with pytest.raises(ValueError, match=r"localization\.txt has no classes, and a map is"):
            evaluate_boxes(store, read_ground_truth(path), of_each(lambda *_: np.zeros((2, 2))))

    def test_map_that_is_not_finite(self, store, truth):
        size_hw = tuple(int(side[0]) for side in store.shards[0].sizes_hw)
        with pytest.raises(ValueError, match=r"no map could be computed.*found NaN"):
            evaluate_boxes(
                store, read_ground_truth(truth), of_each(lambda *_: np.full(size_hw, np.nan))
            )

    def test_images_without_a_map_are_counted_and_named(self, store, truth):
        """One image cannot be read, and the size of another is not that in the store."""
        sizes = {
            shard.file_name(row): (int(shard.sizes_hw[0][row]), int(shard.sizes_hw[1][row]))
            for shard in store.shards for row in range(len(shard))
        }  # fmt: skip
        asked = []

        def score_map(file_name, label):
            asked.append(file_name)
            if len(asked) == 1:
                raise OSError("gone")
            height, width = sizes[file_name]
            return np.eye(height + (len(asked) == 2), width)

        found = evaluate_boxes(store, read_ground_truth(truth), of_each(score_map))
        assert list(found["score_maps"]["failed"]) == asked[:2]
        assert found["score_maps"]["images"] == len(asked) - 2
        assert f"images without a map: 2, such as {asked[0]}: OSError: gone" in quality_table(found)
        few = evaluate_boxes(store, read_ground_truth(truth), of_each(score_map), most_maps=2)
        assert few["score_maps"]["images"] <= 2
