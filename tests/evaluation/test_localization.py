"""Localisation, precision and recall by hand, and against COCO's evaluation."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dap.evaluation.localization import LocalizationQuality
from dap.evaluation.localization_counts import RECALL_IOUS, match, overlaps
from tests.support.boxes import LEFT, RIGHT, WHOLE, labelled


def add(quality, boxes, truth, **kwargs):
    """Add an image: rows of x1, y1, x2, y2, label; 'taus', 'scores' and 'ignored' as lists."""
    rows, objects = (np.array(own, float).reshape(-1, 5) for own in (boxes, truth))
    names = {"taus": "thresholds", "scores": "scores", "ignored": "truth_ignored"}
    given = {names.get(key, key): np.array(value) for key, value in kwargs.items()}
    quality.add(
        rows[:, :4], rows[:, 4].astype(int), objects[:, :4], objects[:, 4].astype(int), **given
    )


def summary_of(*images, thresholds=(), class_agnostic=False, worst=10):
    quality = LocalizationQuality(thresholds, class_agnostic)
    for boxes, truth, *more in images:
        add(quality, boxes, truth, **(more[0] if more else {}))
    return quality.summary(worst)


class TestOneBox:
    def test_is_the_largest(self):
        """LEFT is half of WHOLE: IoU .5 is right; a quarter is not."""
        half = summary_of((labelled(0, LEFT, WHOLE), labelled(0, LEFT)))
        assert half["gt_known_localization"] == half["corloc"] == 1
        quarter = summary_of((labelled(0, [0, 0, 50, 50], WHOLE), labelled(0, [0, 0, 50, 50])))
        assert quarter["gt_known_localization"] == quarter["corloc"] == 0

    def test_is_the_one_with_the_highest_score(self):
        small = [0, 0, 50, 50]
        boxes, truth = labelled(0, small, WHOLE), labelled(0, small)
        assert summary_of((boxes, truth, {"scores": [0.9, 0.1]}))["corloc"] == 1
        assert summary_of((boxes, truth, {"scores": [0.1, 0.9]}))["corloc"] == 0

    def test_any_object_of_the_class_will_do(self):
        assert summary_of((labelled(0, RIGHT), labelled(0, [0, 0, 9, 9], RIGHT)))["corloc"] == 1

    def test_class_is_given(self):
        """A box of another class neither counts nor takes the place of one."""
        assert summary_of((labelled(1, LEFT), labelled(0, LEFT)))["corloc"] == 0
        assert (
            summary_of((labelled(1, WHOLE) + labelled(0, LEFT), labelled(0, LEFT)))["corloc"] == 1
        )

    def test_no_box_is_wrong(self):
        assert summary_of(([], labelled(0, LEFT)))["gt_known_localization"] == 0

    def test_cases_and_classes(self):
        """Class 0: 1 of 1 image. Class 1: 1 of 3. GT-known 2 / 4, CorLoc (1 + 1/3) / 2 = 2/3."""
        found = summary_of(
            (labelled(0, LEFT) + labelled(1, RIGHT), labelled(0, LEFT) + labelled(1, RIGHT)),
            (labelled(1, LEFT), labelled(1, RIGHT)),
            ([], labelled(1, LEFT)),
        )
        assert (found["images"], found["cases"]) == (3, 4)
        assert found["gt_known_localization"] == 0.5
        assert found["corloc"] == pytest.approx(2 / 3)
        assert [own["corloc"] for own in found["per_class"].values()] == [1, pytest.approx(1 / 3)]


class TestPrecisionAndRecall:
    def test_by_hand(self):
        """Three boxes, two objects: LEFT is found, RIGHT is not; 1 / 3 and 1 / 2."""
        boxes = labelled(0, LEFT, [0, 0, 20, 20], [60, 60, 90, 90])
        found = summary_of((boxes, labelled(0, LEFT, RIGHT)))
        assert found["precision"] == pytest.approx(1 / 3)
        assert found["recall"] == 0.5
        assert (found["boxes"], found["objects"]) == (3, 2)

    def test_duplicates_cost_precision(self):
        found = summary_of((labelled(0, LEFT, LEFT, [0, 0, 48, 100]), labelled(0, LEFT)))
        assert (found["precision"], found["recall"]) == (pytest.approx(1 / 3), 1)
        assert summary_of((labelled(0, LEFT), labelled(0, LEFT)))["precision"] == 1

    def test_one_box_does_not_find_two_objects(self):
        found = summary_of((labelled(0, LEFT), labelled(0, LEFT, [0, 0, 49, 100])))
        assert (found["precision"], found["recall"]) == (1, 0.5)

    def test_order_is_that_of_the_scores(self):
        """IoU with LEFT: .8 and 1. The first takes it; without scores the larger is first.

        Average recall, if the .8 is first: at .5 … .8 it takes LEFT, above it leaves it to the
        other: 1 all the same.
        """
        boxes = labelled(0, [0, 0, 40, 100], LEFT)
        for more in ({"scores": [0.9, 0.1]}, {"scores": [0.1, 0.9]}, {}):
            found = summary_of((boxes, labelled(0, LEFT), more))
            assert (found["precision"], found["recall"], found["average_recall"]) == (0.5, 1, 1)
        rows = overlaps(np.array([row[:4] for row in boxes]), np.array([LEFT])).tolist()
        assert rows == [[0.8], [1.0]]
        assert match(rows, [False], 0.5) == [0, -1]
        assert match(rows, [False], 0.85) == [-1, 0]

    def test_best_object_is_taken(self):
        """From 25 to 75: IoU 35 / 55 with 20 to 60, 40 / 50 with 35 to 75."""
        boxes = labelled(0, [25, 0, 75, 100])
        found = summary_of((boxes, labelled(0, [20, 0, 60, 100], [35, 0, 75, 100])))
        assert match([[35 / 55, 0.8]], [False, False], 0.5) == [1]
        assert (found["precision"], found["recall"]) == (1, 0.5)

    def test_sizes(self):
        """31 x 33 = 1023 is small, 32 x 32 = 1024 medium, 96 x 96 = 9216 large.

        The small object is found by a medium box (1023 / 1056 = .97), the medium one is missed,
        the large one is found by a box of its size; a small box is wrong.
        """
        truth = labelled(0, [0, 0, 31, 33], [0, 100, 32, 132], [100, 100, 196, 196])
        boxes = labelled(0, [0, 0, 32, 33], [100, 100, 196, 196], [60, 0, 70, 10])
        assert summary_of((boxes, truth))["by_size"] == {
            "small": {"objects": 1, "boxes": 1, "precision": 0, "recall": 1},
            "medium": {"objects": 1, "boxes": 1, "precision": 1, "recall": 0},
            "large": {"objects": 1, "boxes": 1, "precision": 1, "recall": 1},
        }

    def test_average_recall(self):
        """IoU .62 is a match at .5, .55, .6: .3. The other class has .1 (.52): mean .2."""
        found = summary_of(
            (
                labelled(0, [0, 0, 62, 100]) + labelled(1, [0, 0, 52, 100]),
                labelled(0, WHOLE) + labelled(1, WHOLE),
            )
        )
        assert found["average_recall"] == pytest.approx(0.2)
        recalls = [own["average_recall"] for own in found["per_class"].values()]
        assert recalls == [pytest.approx(0.3), pytest.approx(0.1)]

    def test_ratios_of_nothing_are_none(self):
        found = summary_of(([], labelled(0, LEFT)))
        assert (found["precision"], found["recall"]) == (None, 0)
        assert found["by_size"]["small"]["recall"] is None
        assert LocalizationQuality().summary()["corloc"] is None


class TestIgnored:
    def test_neither_found_nor_missed(self):
        """The second box lies on the ignored object, the third on nothing: precision 1 / 2."""
        boxes = labelled(0, LEFT, [110, 110, 150, 150], [300, 300, 310, 310])
        truth = labelled(0, LEFT, [100, 100, 200, 200])
        found = summary_of((boxes, truth, {"ignored": [False, True]}))
        assert (found["precision"], found["recall"], found["average_recall"]) == (0.5, 1, 1)
        assert (found["objects"], found["objects_ignored"], found["boxes"]) == (1, 1, 2)

    def test_half_of_the_box_is_enough(self):
        """Half of the box from 0 to 20 lies in the ignored object, 9 / 19 of that from 0 to 19."""
        more = {"ignored": [True]}
        truth = labelled(0, [10, 0, 100, 100])
        assert summary_of((labelled(0, [0, 0, 20, 10]), truth, more))["boxes"] == 0
        assert summary_of((labelled(0, [0, 0, 19, 10]), truth, more))["boxes"] == 1

    def test_object_comes_first(self):
        """A box on both finds the object, though it overlaps more with the crowd."""
        found = summary_of(
            (labelled(0, LEFT), labelled(0, WHOLE, LEFT), {"ignored": [True, False]})
        )
        assert (found["precision"], found["recall"]) == (1, 1)

    def test_several_boxes_on_one_ignored_object(self):
        found = summary_of((labelled(0, LEFT, RIGHT), labelled(0, WHOLE), {"ignored": [True]}))
        assert (found["boxes"], found["cases"], found["images"]) == (0, 0, 1)
        assert found["gt_known_localization"] is found["corloc"] is found["precision"] is None

    def test_ignored_object_is_no_hit_for_corloc(self):
        found = summary_of(
            (labelled(0, RIGHT), labelled(0, LEFT, RIGHT), {"ignored": [False, True]})
        )
        assert (found["corloc"], found["precision"], found["recall"]) == (0, None, 0)


class TestThresholds:
    def test_by_hand(self):
        """Truth is LEFT, 50 px wide.

        Image 1. τ .2: WHOLE, IoU .5. τ .5: 20 px wide, .4, and all of LEFT but 10 px high, .1.
        Image 2. τ .2: nothing. τ .5: RIGHT, 0, and 40 px wide of LEFT, .8. RIGHT is the larger.
        """
        found = summary_of(
            (
                labelled(0, WHOLE, [0, 0, 20, 100], [0, 0, 50, 10]),
                labelled(0, LEFT),
                {"taus": [0, 1, 1]},
            ),
            (labelled(0, [0, 0, 40, 100], RIGHT), labelled(0, LEFT), {"taus": [1, 1]}),
            thresholds=(0.2, 0.5),
        )
        assert found["per_threshold"] == {
            "0.2": {
                "largest_box": {"0.3": 0.5, "0.5": 0.5, "0.7": 0},
                "any_box": {"0.3": 0.5, "0.5": 0.5, "0.7": 0},
            },
            "0.5": {
                "largest_box": {"0.3": 0.5, "0.5": 0, "0.7": 0},
                "any_box": {"0.3": 1, "0.5": 0.5, "0.7": 0.5},
            },
        }
        assert found["best_threshold"] == {
            "largest_box": {"accuracy": 0.5, "threshold": 0.2},
            "any_box": pytest.approx((1 + 0.5 + 0.5) / 3),
            "any_box_by_iou": {
                "0.3": {"accuracy": 1, "threshold": 0.5},
                "0.5": {"accuracy": 0.5, "threshold": 0.2},
                "0.7": {"accuracy": 0.5, "threshold": 0.5},
            },
        }

    def test_largest_box_whatever_the_scores(self):
        more = {"taus": [0, 0], "scores": [0.1, 0.9]}
        found = summary_of(
            (labelled(0, LEFT, [0, 0, 9, 9]), labelled(0, LEFT), more), thresholds=(0.2,)
        )
        assert found["per_threshold"]["0.2"]["largest_box"]["0.7"] == 1
        assert found["gt_known_localization"] == 0

    def test_boxes_of_no_threshold(self):
        found = summary_of(
            (labelled(0, LEFT), labelled(0, LEFT), {"taus": [255]}), thresholds=(0.2,)
        )
        assert found["per_threshold"]["0.2"]["any_box"]["0.3"] == 0
        assert found["corloc"] == 1

    def test_none(self):
        found = summary_of((labelled(0, LEFT), labelled(0, LEFT)))
        assert found["per_threshold"] == found["best_threshold"] == {}


class TestImagesAndClasses:
    def test_without_truth_is_not_counted(self):
        one = (labelled(0, LEFT), labelled(0, LEFT))
        found = summary_of(one, (labelled(0, LEFT, RIGHT), []))
        assert found.pop("images_without_truth") == 1
        expected = summary_of(one)
        assert expected.pop("images_without_truth") == 0
        assert found == expected

    def test_class_agnostic(self):
        image = (labelled(3, LEFT), labelled(5, LEFT))
        assert summary_of(image)["corloc"] == 0
        found = summary_of(image, class_agnostic=True)
        assert (found["corloc"], found["precision"], list(found["per_class"])) == (1, 1, [0])

    def test_class_without_objects(self):
        """Its box lowers precision; CorLoc and average recall leave the class out."""
        found = summary_of((labelled(0, LEFT) + labelled(1, LEFT), labelled(0, LEFT)))
        assert (found["corloc"], found["average_recall"], found["precision"]) == (1, 1, 0.5)
        assert found["per_class"][1]["corloc"] is found["per_class"][1]["recall"] is None
        assert [own["label"] for own in found["worst_classes"]] == [0]

    def test_worst_classes(self):
        """Among classes of equal CorLoc, here 0, the one with the lower recall comes first."""
        small = [0, 0, 10, 10]
        found = summary_of(
            (labelled(0, LEFT), labelled(0, LEFT)),
            (labelled(2, WHOLE, small), labelled(2, small, [50, 50, 60, 60]), {"image": 70}),
            (labelled(1, LEFT), labelled(1, small), {"image": 30}),
            (labelled(0, LEFT), labelled(0, RIGHT), {"image": 20}),
            worst=3,
        )
        assert found["worst_classes"] == [
            {"label": 1, "corloc": 0, "missed_images": [30], "found_images": []},
            {"label": 2, "corloc": 0, "missed_images": [70], "found_images": []},
            {"label": 0, "corloc": 0.5, "missed_images": [20], "found_images": [0]},
        ]

    def test_order_makes_no_difference(self):
        images = [random_image(seed) for seed in range(30)]
        forward, backward = (
            summary_of(*(image[:2] for image in own), worst=0) for own in (images, images[::-1])
        )
        assert forward == backward
        turned = summary_of(*((boxes[::-1], truth[::-1]) for boxes, truth, _ in images), worst=0)
        assert forward == turned

    def test_classes_add_up(self):
        found = summary_of(*(random_image(seed) for seed in range(30)))
        for name in ("cases", "objects", "boxes"):
            assert found[name] == sum(own[name] for own in found["per_class"].values())
        right = sum((own["precision"] or 0) * own["boxes"] for own in found["per_class"].values())
        assert right / found["boxes"] == pytest.approx(found["precision"])
        assert 0.1 < found["precision"] < 0.9


class TestErrors:
    @pytest.mark.parametrize("box", [[5, 0, 1, 9], [0, 0, np.nan, 1], [0, 0, np.inf, 1]])
    @pytest.mark.parametrize("name", ["boxes", "truth_boxes"])
    def test_boxes(self, name, box):
        pair = (
            (labelled(0, box), labelled(0, LEFT))
            if name == "boxes"
            else (labelled(0, LEFT), labelled(0, box))
        )
        with pytest.raises(ValueError, match=rf"^{name}: expected finite x1 <= x2"):
            summary_of(pair)

    def test_truth_without_area(self):
        with pytest.raises(ValueError, match="truth_boxes: found one without area"):
            summary_of((labelled(0, LEFT), labelled(0, [5, 5, 5, 9])))
        assert summary_of((labelled(0, [5, 5, 5, 9]), labelled(0, LEFT)))["precision"] == 0

    @pytest.mark.parametrize("name", ["scores", "taus", "ignored"])
    def test_lengths(self, name):
        with pytest.raises(ValueError, match=r"expected 1 values, found \(2,\)"):
            summary_of((labelled(0, LEFT), labelled(0, LEFT), {name: [1, 1]}))

    def test_shape(self):
        with pytest.raises(ValueError, match=r"boxes: expected shape \(N, 4\), found \(2,\)"):
            LocalizationQuality().add([1, 2], [0, 0], np.zeros((0, 4)), [])


def random_image(seed):
    """Objects of three classes, some ignored, and boxes near them and elsewhere, with scores."""
    rng = np.random.default_rng(seed)

    def box():
        x, y, w, h = rng.integers(1, 150, 4)
        return np.array([x, y, x + w, y + h], float)

    truth = [[*box(), int(rng.integers(3))] for _ in range(rng.integers(1, 6))]
    boxes = [[*box(), int(rng.integers(3))] for _ in range(rng.integers(0, 3))]
    for *corners, label in truth * 2:
        moved = np.array(corners) + rng.normal(0, 12, 4).round(1)
        boxes.append([*np.minimum(moved[:2], moved[2:]), *np.maximum(moved[:2], moved[2:]), label])
    more = {"scores": rng.random(len(boxes)), "ignored": rng.random(len(truth)) < 0.2}
    return boxes, truth, more


def test_against_coco():
    """Recall, average recall and precision from COCO's own matching."""
    images = [random_image(seed) for seed in range(100, 160)]
    found = summary_of(*images)
    coco, detections = COCO(), []
    content = {"images": [], "annotations": [], "categories": [{"id": i} for i in range(3)]}
    for number, (boxes, truth, more) in enumerate(images):
        content["images"].append({"id": number})
        for (x1, y1, x2, y2, label), ignored in zip(truth, more["ignored"], strict=True):
            own = {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label, "image_id": number}
            own |= {"area": (x2 - x1) * (y2 - y1), "iscrowd": int(ignored)}
            content["annotations"].append({"id": len(content["annotations"]) + 1, **own})
        for (x1, y1, x2, y2, label), score in zip(boxes, more["scores"], strict=True):
            own = {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label, "image_id": number}
            detections.append({"score": score, **own})
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = content
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    recall = evaluation.eval["recall"][:, :, 0, 2]  # IoU, class; all sizes, 100 boxes
    assert np.allclose(evaluation.params.iouThrs, RECALL_IOUS)
    assert found["average_recall"] == pytest.approx(evaluation.stats[8])
    for label, own in found["per_class"].items():
        assert own["recall"] == pytest.approx(recall[0, label])
        assert own["average_recall"] == pytest.approx(recall[:, label].mean())
    matched = [own for own in evaluation.evalImgs if own and own["aRng"] == [0, 1e10]]
    counted = [~own["dtIgnore"][0].astype(bool) for own in matched]
    right = sum(
        (own["dtMatches"][0][kept] > 0).sum() for own, kept in zip(matched, counted, strict=True)
    )
    assert found["precision"] == pytest.approx(right / sum(kept.sum() for kept in counted))
    assert 0.3 < found["recall"] < 0.95
    assert found["objects_ignored"] > 10
