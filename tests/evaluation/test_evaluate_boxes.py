"""A store against ground truth, in code and on the command line."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from dap.evaluation.evaluate import evaluate_boxes, evenly_spread, truth_by_image
from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.max_box_accuracy import MaxBoxAccuracy
from dap.evaluation.quality_table import quality_table
from dap.pseudo_boxes import PseudoBoxSettings, PseudoBoxStore, generate_pseudo_boxes
from dap.store.masks import encode_mask
from dap.store.writer import StoreWriter
from dap.testing import draw_image, write_image

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "evaluate_boxes.py"
PLANTED = ROOT / "tests" / "pseudo_boxes"  # a classifier whose maps are known
CATEGORIES = [
    {"id": 3, "name": "n3", "readable_name": "crane"},
    {"id": 11, "name": "n11", "readable_name": "crane"},
    {"id": 7, "name": "n7", "readable_name": "owl"},
]
LEFT, RIGHT, WHOLE = [0, 0, 50, 100], [50, 0, 100, 100], [0, 0, 100, 100]


def write_store(folder, records, categories=CATEGORIES, shard_size=2, **settings):
    settings = {"thresholds": (0.2, 0.5), "nms_iou": None, "rule": "paper", **settings}
    described = {
        "settings": PseudoBoxSettings(**settings).as_json(),
        "classifier": {},
        "image_list": {"count": len(records), "root": ""},
        "shard_size": shard_size,
        "categories": categories,
    }
    writer = StoreWriter(folder, described)
    for shard in writer.begin():
        writer.write(shard, [records[i] for i in writer.indices(shard)])
    writer.finish()
    return PseudoBoxStore(folder)


def image(name, *boxes):
    """An image of 100 x 100 pixels: rows of box, label, index of τ."""
    rows = [[*box, label, tau] for box, label, tau in boxes]
    reason = {} if rows else {"reason": "its map is constant"}
    return {"file_name": name, "height": 100, "width": 100, "boxes": rows, **reason}


@pytest.fixture
def store(tmp_path):
    """Three shards of two."""
    return write_store(
        tmp_path / "boxes",
        [
            image("a/1.JPEG", (WHOLE, 0, 0), (LEFT, 0, 1)),
            image("a/2.JPEG", (RIGHT, 0, 1)),
            image("b/3.JPEG"),
            {"file_name": "b/broken.JPEG", "reason": "it is no image"},
            image("c/5.JPEG", (LEFT, 2, 0)),
            image("c/6.JPEG", (LEFT, 2, 0)),
        ],
    )


@pytest.fixture
def truth(tmp_path):
    """Of the six images all but the last, one more, and one without objects."""
    names = ["1", "2", "3", "broken", "5", "7", "8"]
    boxes = [("n3", LEFT), ("n3", LEFT), ("n11", LEFT), ("n11", LEFT), ("n7", LEFT), ("n7", LEFT)]
    boxes.append(("elsewhere", LEFT))
    ids = {"n3": 1, "n7": 2, "n11": 3, "elsewhere": 4}
    content = {
        "images": [{"id": i, "file_name": f"{name}.JPEG"} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
        "annotations": [
            {"image_id": i, "category_id": ids[name], "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for i, (name, (x1, y1, x2, y2)) in enumerate(boxes)
        ],
    }
    content["annotations"].append(
        {"image_id": 4, "category_id": 2, "bbox": [60, 60, 10, 10], "iscrowd": 1}
    )
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    return path


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
        """Without classes there is one, and no error for categories that do not match."""
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


def of_each(score_map):
    """What gives the maps of many images, from what gives one and raises OSError."""

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
        """So that those of millions of images are never in memory together."""
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
        """One cannot be read, another has another size than the one whose boxes are known."""
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
        assert f"2 images have no map, such as {asked[0]}: OSError: gone" in quality_table(found)
        few = evaluate_boxes(store, read_ground_truth(truth), of_each(score_map), most_maps=2)
        assert few["score_maps"]["images"] <= 2


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


CONFIG = """
custom_imports = dict(imports=['planted'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier', backbone=dict(type='MeanColours'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=3),
    data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3))
"""


@pytest.fixture
def planted_run(tmp_path, monkeypatch):
    """Rectangles on grey, a run of Step 2 on them, and where they are."""
    monkeypatch.syspath_prepend(str(PLANTED))
    from mmpretrain.datasets import CustomDataset
    from planted import planted_classifier, planted_state

    init_default_scope("mmpretrain")
    lines = []
    for number, colour in enumerate(["blue", "green", "red", "red"]):
        x = 32 * number
        write_image(
            tmp_path / "images" / colour / f"{number}.png",
            draw_image((128, 192), [(x, 32, x + 64, 96)], [colour]),
        )
        lines.append(f"{number},{colour} {x} 32 {x + 64} 96")
    (tmp_path / "truth.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    (tmp_path / "config.py").write_text(CONFIG)
    torch.save({"state_dict": planted_state(), "meta": {}}, tmp_path / "planted.pth")
    generate_pseudo_boxes(
        planted_classifier(),
        CustomDataset(data_root=str(tmp_path / "images")),
        tmp_path / "boxes",
        PseudoBoxSettings((128,), True, (0.3, 0.5), rule="paper"),
        "planted.pth",
    )
    return tmp_path


@pytest.fixture
def run_tool(monkeypatch):
    """Call the tool in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name="__main__")

    return run


class TestTool:
    def test_as_a_user_does(self, store, truth, tmp_path, run_tool, capsys):
        out = tmp_path / "out" / "quality.json"
        run_tool(store.folder, truth, "--json", out)
        said = capsys.readouterr().out
        assert "5 images with 5 objects and 4 boxes evaluated; of 7 images" in said
        assert "CorLoc, mean over classes          50.0" in said
        assert "worst classes     0.0  n11 crane: 2 images missed, 0 found" in said
        assert "note: 1 categories of the ground truth, with 1 objects" in said
        expected = evaluate_boxes(store, read_ground_truth(truth))
        assert json.loads(out.read_text()) == expected
        assert os.listdir(out.parent) == ["quality.json"]

    def test_with_maps(self, planted_run, run_tool, capsys):
        """Colours on grey: all is found, by boxes and by maps."""
        out = planted_run / "quality.json"
        run_tool(
            *(planted_run / "boxes", planted_run / "truth.csv", "--worst", "2", "--json", out),
            *("--maps", planted_run / "config.py", planted_run / "planted.pth", "--device", "cpu"),
        )
        table = capsys.readouterr().out
        assert "4 images with 4 objects and 4 boxes evaluated" in table
        assert "GT-known localisation, IoU .5     100.0" in table
        assert "MaxBoxAccV2 of 4 maps             100.0" in table
        assert "worst classes   100.0  blue: 0 images missed, 1 found" in table
        assert "note: NMS at IoU 0.8 has merged the boxes" in table
        assert "red" not in table
        found = json.loads(out.read_text())
        assert found["per_threshold"]["0.3"]["largest_box"]["0.7"] == 1
        assert found["score_maps"]["max_box_acc_v2_by_iou"]["0.7"] == 1
        assert [own["name"] for own in found["per_class"]] == ["blue", "green", "red"]

    def test_errors(self, store, truth, tmp_path, run_tool, capsys):
        def fails(*arguments):
            with pytest.raises(SystemExit) as caught:
                run_tool(*arguments)
            return str(caught.value)

        assert "holds no pseudo boxes" in fails(tmp_path / "nowhere", truth)
        assert "nowhere: cannot be read" in fails(store.folder, tmp_path / "nowhere")
        assert "is a folder" in fails(store.folder, truth, "--json", tmp_path)
        assert capsys.readouterr().out == ""


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
        record = image("1.jpg", (LEFT, 0, 0)) | {"masks": [mask_of(0, 0, 50, 50)]}
        return write_store(tmp_path / "boxes", [record], masks=True)

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
        del content["annotations"][2]  # which says its size itself
        truth.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"1\.jpg: its true masks have \[100, 90\] pixels"):
            evaluate_boxes(store, read_ground_truth(truth, with_masks=True))

    def test_neither_unless_both_have_them(self, store, truth, tmp_path):
        assert "masks" not in evaluate_boxes(store, read_ground_truth(truth))
        alone = write_store(tmp_path / "alone", [image("1.jpg", (LEFT, 0, 0))])
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
