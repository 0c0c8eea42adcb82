"""The layouts of ground truth, each by hand, and the match with a store."""

import json

import numpy as np
import pytest

from dap.evaluation.ground_truth import read_ground_truth
from dap.evaluation.name_matching import match_categories, match_images
from dap.testing import write_voc_annotation


def objects(truth):
    """Image → rows of box, name of the category (or None), ignored."""
    found = {}
    for image, name in enumerate(truth.names):
        boxes, labels, ignored = truth.objects_of(image)
        names = [truth.categories[label] if truth.categories else None for label in labels]
        found[name] = list(zip(boxes.tolist(), names, ignored.tolist(), strict=True))
    return found


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


XML = """<annotation>
  <folder>val</folder><filename>elsewhere</filename>
  <size><width>500</width><height>375</height><depth>3</depth></size>
  <object><name>n01751748</name><difficult>0</difficult>
    <bndbox><xmin>45</xmin><ymin>49</ymin><xmax>500</xmax><ymax>162</ymax></bndbox></object>
  <object><name>n02084071</name><difficult>1</difficult>
    <bndbox><xmin>2</xmin><ymin>69</ymin><xmax>437</xmax><ymax>207</ymax></bndbox></object>
</annotation>"""


class TestXml:
    def test_imagenet(self, tmp_path):
        """Corners are edges: x2 is the width."""
        write(tmp_path / "val" / "ILSVRC2012_val_00000002.xml", XML)
        nothing = XML[: XML.index("<object>")] + "</annotation>"
        write(tmp_path / "val" / "ILSVRC2012_val_00000001.xml", nothing)
        truth = read_ground_truth(tmp_path)
        assert objects(truth) == {
            "val/ILSVRC2012_val_00000001": [],
            "val/ILSVRC2012_val_00000002": [
                ([45, 49, 500, 162], "n01751748", False),
                ([2, 69, 437, 207], "n02084071", True),
            ],
        }
        assert (truth.layout, truth.without_area) == ("XML", 0)

    def test_pascal(self, tmp_path):
        """Pixels count from 1, the last is inside."""
        write_voc_annotation(tmp_path / "1.xml", (96, 128), [(10, 20, 30, 40)], ["red"])
        assert "<xmin>11</xmin>" in (tmp_path / "1.xml").read_text()
        found = objects(read_ground_truth(tmp_path, one_based=True))
        assert found == {"1": [([10, 20, 30, 40], "red", False)]}

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="expected XML files, found none"):
            read_ground_truth(tmp_path)
        path = write(tmp_path / "a" / "1.xml", "<annotation>\n  <size></annotation>")
        with pytest.raises(
            ValueError, match=rf"{path}: it is no XML: mismatched tag: line 2, column 1"
        ):
            read_ground_truth(tmp_path)
        write(path, XML.replace("<xmax>437</xmax>", ""))
        message = rf"{path}: <bndbox> of <object> 'n02084071' has no <xmax>"
        with pytest.raises(ValueError, match=message):
            read_ground_truth(tmp_path)
        file = write(tmp_path / "1.json", "{}")
        with pytest.raises(ValueError, match="is no folder of XML files"):
            read_ground_truth(file, one_based=True)


def coco(**changes):
    """Ids 3 and 7, not in order; an image without objects; a crowd; a box without area."""
    content = {
        "categories": [{"id": 7, "name": "n7"}, {"id": 3, "name": "n3"}],
        "images": [
            {"id": 9, "file_name": "a/9.jpg"},
            {"id": 2, "file_name": "2.jpg"},
            {"id": 4, "file_name": "4.jpg"},
        ],
        "annotations": [
            {"image_id": 2, "category_id": 3, "bbox": [1, 2, 10, 20.5]},
            {"image_id": 9, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"image_id": 2, "category_id": 7, "bbox": [5, 5, 1, 1], "iscrowd": 0, "ignore": 1},
            {"image_id": 2, "category_id": 7, "bbox": [5, 5, 0, 1]},
        ],
    }
    return {**content, **changes}


class TestCoco:
    def test_by_hand(self, tmp_path):
        truth = read_ground_truth(write(tmp_path / "c.json", json.dumps(coco())))
        assert objects(truth) == {
            "a/9.jpg": [([0, 0, 5, 5], "n7", True)],
            "2.jpg": [([1, 2, 11, 22.5], "n3", False), ([5, 5, 6, 6], "n7", True)],
            "4.jpg": [],
        }
        assert (truth.layout, truth.without_area) == ("COCO", 1)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"images": None}, "images: TypeError"),
            ({"categories": [{"id": 1}]}, "categories: KeyError 'name'"),
            ({"images": [{"id": i, "file_name": "1.jpg"} for i in (1, 2)]}, "stands there twice"),
            ({"images": [{"id": 1, "file_name": n} for n in "ab"]}, "stands there twice"),
            (
                {"annotations": [*coco()["annotations"], {"image_id": 5, "category_id": 3}]},
                r"annotations\[4\]: KeyError 'bbox'",
            ),
            (
                {"annotations": [{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4]}]},
                r"annotations\[0\]: KeyError 5",
            ),
            (
                {"annotations": [{"image_id": 2, "category_id": 3, "bbox": [1, 2, 3]}]},
                "expected four numbers",
            ),
            (
                {"annotations": [{"image_id": 2, "category_id": 3, "bbox": [1, 2, 3, None]}]},
                r"annotations\[0\]: TypeError",
            ),
            ({"annotations": []}, "found 3 images and none that has a box with an area"),
        ],
    )
    def test_malformed(self, tmp_path, changes, message):
        path = write(tmp_path / "c.json", json.dumps(coco(**changes)))
        with pytest.raises(ValueError, match=rf"{path}.*{message}"):
            read_ground_truth(path)

    def test_no_json(self, tmp_path):
        path = write(tmp_path / "c.json", '{"images": [\n1,')
        with pytest.raises(ValueError, match=r"c\.json is no JSON: .*line 2 column 3"):
            read_ground_truth(path)
        path = write(tmp_path / "c.json", "[1]")
        with pytest.raises(ValueError, match=r"c\.json, categories: TypeError"):
            read_ground_truth(path)


SOLUTION = """ImageId,PredictionString
ILSVRC2012_val_00048981,n03995372 85 1 499 272
ILSVRC2012_val_00037956,n03481172 131 0 499 254 n03995372 1 2 3.5 4
"""


class TestText:
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    @pytest.mark.parametrize("start", ["", "\ufeff"])
    def test_solution(self, tmp_path, newline, start):
        path = tmp_path / "LOC_val_solution.csv"
        path.write_bytes((start + SOLUTION).replace("\n", newline).encode())
        truth = read_ground_truth(path)
        assert objects(truth) == {
            "ILSVRC2012_val_00048981": [([85, 1, 499, 272], "n03995372", False)],
            "ILSVRC2012_val_00037956": [
                ([131, 0, 499, 254], "n03481172", False),
                ([1, 2, 3.5, 4], "n03995372", False),
            ],
        }
        assert truth.layout == "LOC_solution"

    def test_localization(self, tmp_path):
        lines = ["val/ILSVRC2012_val_00000001.JPEG,111,108,441,193"]
        lines += ["val/a, b.JPEG,45,49,499,162", "val/ILSVRC2012_val_00000001.JPEG,2,69,437,207"]
        truth = read_ground_truth(write(tmp_path / "localization.txt", "\n".join(lines)))
        assert objects(truth) == {
            "val/ILSVRC2012_val_00000001.JPEG": [
                ([111, 108, 441, 193], None, False),
                ([2, 69, 437, 207], None, False),
            ],
            "val/a, b.JPEG": [([45, 49, 499, 162], None, False)],
        }
        assert truth.categories is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (SOLUTION + "\nx,n1 1 2 3", "line 5: found 'x,n1 1 2 3' .4 words"),
            (SOLUTION + "x", "line 4: found 'x'"),
            (SOLUTION + "x,n1 1 2 3 four", "line 4: .*could not convert string to float: 'four'"),
            ("a.jpg,1,2,3,4\n\na.jpg,1,2,3", "line 3: found 'a.jpg,1,2,3'"),
            ("a.jpg,1,2,3,nan", "line 1: .*expected four numbers"),
            ("one\ntwo", r"line 1: found 'one' .*Expected COCO json, .*localization\.txt"),
            ("", "found 0 images and none that has a box"),
        ],
    )
    def test_malformed(self, tmp_path, text, message):
        path = write(tmp_path / "truth.txt", text)
        with pytest.raises(ValueError, match=rf"(?s){path}.*{message}"):
            read_ground_truth(path)

    def test_no_text(self, tmp_path):
        (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match=r"x\.bin is no text"):
            read_ground_truth(tmp_path / "x.bin")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read_ground_truth(tmp_path / "nowhere")


class TestImages:
    def test_by_name(self):
        assert match_images(["b/1.jpg", "a/1.jpg"], ["a/1.jpg", "b/1.jpg", "c"]) == {0: 1, 1: 0}

    def test_without_suffix(self):
        """The stem is not unique, the path is."""
        assert match_images(["a/1.JPEG", "b/1.JPEG"], ["b/1"]) == {1: 0}

    def test_by_stem(self):
        """ImageNet's validation images in class folders."""
        names = ["n01/ILSVRC2012_val_00000003.JPEG", "n02/ILSVRC2012_val_00000002.JPEG"]
        truth = ["val/ILSVRC2012_val_00000001", "val/ILSVRC2012_val_00000002"]
        assert match_images(names, truth) == {1: 1}

    def test_dots_that_end_no_image(self):
        assert match_images(["x/1.5.jpg", "x/1.jpg"], ["1.5", "1.6"]) == {0: 0}

    def test_stem_must_be_unique_on_both_sides(self):
        assert match_images(["a/1.jpg", "b/1.jpg", "2.jpg"], ["x/1.jpg", "y/2.jpg"]) == {2: 1}
        assert match_images(["a/1.jpg", "2.jpg"], ["x/1.jpg", "y/1.jpg", "z/2.jpg"]) == {1: 2}
        assert match_images(["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "c/1.jpg"]) == {0: 0}

    def test_stems_do_not_count_where_names_match(self):
        """Folders with numbers of their own: another folder's number is another image."""
        assert match_images(["cat/1.jpg", "dog/2.jpg"], ["cat/1.jpg", "fish/2.jpg"]) == {0: 0}

    def test_name_twice_in_the_store(self):
        assert match_images(["1.jpg", "1.jpg", "2.jpg"], ["1.jpg", "2.jpg"]) == {2: 1}

    def test_none(self):
        with pytest.raises(ValueError, match=r"like 'x\.png', the store like 'a/1\.jpg'"):
            match_images(["a/1.jpg", "a/2.jpg"], ["x.png", "y.png"])


class TestCategories:
    STORE = ({"id": 5, "name": "n5"}, {"id": 1, "name": "n1"})

    def test_by_name(self):
        found = match_categories(self.STORE, ["n1", "n9", "n5"])
        assert found.tolist() == [1, -1, 0]

    def test_none(self):
        with pytest.raises(ValueError, match="names like 'cat', the store like 'n5'"):
            match_categories(self.STORE, ["cat"])
        assert match_categories(self.STORE, ["cat"], none_may_match=True).tolist() == [-1]


def test_many_objects_of_many_classes(tmp_path):
    """Order within an image is that of the file; 20,000 categories are no burden."""
    rng = np.random.default_rng(0)
    categories = [{"id": i + 1, "name": f"n{i:08d}"} for i in range(20_000)]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5000)]
    annotations = [
        {"image_id": int(image), "category_id": int(category), "bbox": [i, 0, 1, 1]}
        for i, (image, category) in enumerate(rng.integers(1, 5000, (20_000, 2)))
    ]
    content = {"categories": categories, "images": images, "annotations": annotations}
    truth = read_ground_truth(write(tmp_path / "c.json", json.dumps(content)))
    expected = {}
    for item in annotations:
        row = (item["bbox"][0], f"n{item['category_id'] - 1:08d}")
        expected.setdefault(item["image_id"], []).append(row)
    for image in range(5000):
        boxes, labels, _ = truth.objects_of(image)
        names = [truth.categories[label] for label in labels]
        found = list(zip(boxes[:, 0].tolist(), names, strict=True))
        assert found == expected.get(image, [])
