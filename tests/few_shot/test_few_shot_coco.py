"""Few-shot subsets of COCO files: what counts, and files that mmdet reads."""

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset

from dap.few_shot import make_few_shot_subsets
from dap.testing import make_coco
from tests.support.few_shot import coco_content, image_ids, read, write_coco


class TestCoco:
    def test_subset_keeps_all_boxes_and_all_categories(self, tmp_path):
        """Cat has one image, which also shows a dog and a crowd; zebra has none."""
        crowd = {"name": "zebra", "iscrowd": 1, "segmentation": {"counts": [1], "size": [96, 128]}}
        images = {40: ["dog"], 7: ["cat", "dog", crowd], 9: ["dog"]}
        path = write_coco(tmp_path / "instances_x.json", images, ("zebra", "dog", "cat"))
        (folder,) = make_few_shot_subsets(tmp_path, [1], seeds=[5], coco=path)
        assert folder == tmp_path / "coco_1shot_seed5"
        whole, subset = read(path), read(folder / "annotations.json")
        drawn = image_ids(folder)
        assert 7 in drawn
        assert len(drawn) == 2
        assert {key: subset[key] for key in ("info", "licenses", "categories")} == {
            key: whole[key] for key in ("info", "licenses", "categories")
        }
        assert subset["annotations"] == [a for a in whole["annotations"] if a["image_id"] in drawn]
        assert [a["iscrowd"] for a in subset["annotations"] if a["image_id"] == 7] == [0, 0, 1]
        record = read(folder / "record.json")
        assert record["classes"] == {
            "zebra": {"available": 0, "drawn_for": 0, "images": 0, "boxes": 0},
            "dog": {"available": 3, "drawn_for": 1, "images": 2, "boxes": 2},
            "cat": {"available": 1, "drawn_for": 1, "images": 1, "boxes": 1},
        }
        assert (record["short"], record["split"]) == ({"zebra": 0}, None)

    def test_draw_does_not_depend_on_the_order_of_the_file(self, tmp_path):
        content = coco_content({i: ["cat"] if i % 3 else ["dog", "cat"] for i in range(1, 40)})
        one, two = tmp_path / "one.json", tmp_path / "two.json"
        one.write_text(json.dumps(content))
        for key in ("images", "annotations", "categories"):
            content[key].reverse()
        two.write_text(json.dumps(content))
        (first,) = make_few_shot_subsets(tmp_path, [4], coco=one)
        (second,) = make_few_shot_subsets(tmp_path, [4], coco=two)
        assert (first.name, second.name) == ("one_4shot_seed0", "two_4shot_seed0")
        assert len(image_ids(first)) == 8
        assert image_ids(first) == image_ids(second)

    @pytest.mark.parametrize(
        "unusable",
        [
            {"iscrowd": 1},
            {"ignore": 1},
            {"bbox": [10, 10, 0.9, 40]},
            {"bbox": [10, 10, 30, 0.5]},
            {"bbox": [130, 10, 30, 40]},  # right of the image, which is 128 wide
            {"area": 0},
        ],
        ids=str,
    )
    def test_what_mmdet_does_not_train_on_does_not_count(self, tmp_path, unusable):
        path = write_coco(tmp_path / "a.json", {1: [{"name": "cat", **unusable}], 2: ["cat"]})
        (folder,) = make_few_shot_subsets(tmp_path, [2], coco=path)
        assert image_ids(folder) == {2}
        dataset = read_with_mmdet(path, tmp_path)
        trained = [
            item["ignore_flag"] == 0
            for index in range(2)
            for item in dataset.get_data_info(index)["instances"]
        ]
        assert trained.count(True) == 1

    def test_smallest_usable_box_counts(self, tmp_path):
        path = write_coco(tmp_path / "a.json", {1: [{"name": "cat", "bbox": [0, 0, 1, 1]}]})
        (folder,) = make_few_shot_subsets(tmp_path, [1], coco=path)
        assert image_ids(folder) == {1}

    def test_mmdet_reads_the_file(self, tmp_path):
        path = make_coco(tmp_path, images=20)
        (folder,) = make_few_shot_subsets(tmp_path / "out", [3], coco=path)
        dataset = read_with_mmdet(folder / "annotations.json", tmp_path, ("blue", "green", "red"))
        loaded = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert len(loaded) == 9
        assert all(Path(info["img_path"]).is_file() for info in loaded)
        labels = [item["bbox_label"] for info in loaded for item in info["instances"]]
        counted = read(folder / "record.json")["classes"]
        assert [labels.count(i) for i in range(3)] == [
            counts["boxes"] for counts in counted.values()
        ]


def read_with_mmdet(path, root, classes=("cat", "dog")):
    return CocoDataset(
        ann_file=str(path),
        data_prefix={"img": f"{root}/images/"},
        metainfo={"classes": classes},
        pipeline=[],
    )
