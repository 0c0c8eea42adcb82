"""XML trees laid out like ILSVRC DET, made by hand."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import VOCDataset

from dap.datasets import CheckedCocoDataset
from dap.datasets.voc_xml import convert_xml_tree
from dap.testing import make_voc, write_image, write_voc_annotation

ROOT = Path(__file__).resolve().parents[2]
FIRST = "ILSVRC2013_train/n01440764/n01440764_10040"
SECOND = "ILSVRC2014_train_0000/ILSVRC2014_train_00000001"
EMPTY = "ILSVRC2014_train_0000/ILSVRC2014_train_00000002"


def thing(name, corners, extra=""):
    tags = zip(("xmin", "xmax", "ymin", "ymax"), corners, strict=True)  # ILSVRC's order
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


class Tree:
    """Annotations/DET/train beside Data/DET/train."""

    def __init__(self, root):
        self.annotations = root / "Annotations" / "DET" / "train"
        self.images = root / "Data" / "DET" / "train"
        self.out = root / "out" / "det.json"

    def add(self, stem, *things, size=(30, 20), suffix=".JPEG"):
        """Write an image of 30 x 20 px and an XML that is wrong about its name and folder."""
        text = (
            "<annotation><folder>elsewhere</folder><filename>another</filename>"
            f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
            f"{''.join(things)}</annotation>"
        )
        self.write(stem, text)
        if suffix:
            path = self.images / f"{stem}{suffix}"
            write_image(path.with_suffix(".jpg"), np.zeros((20, 30, 3), np.uint8)).rename(path)

    def write(self, stem, text):
        path = self.annotations / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def convert(self, **settings):
        summary = convert_xml_tree(self.annotations, self.images, self.out, **settings)
        return json.loads(self.out.read_text()), summary


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def det(tree):
    """Two images with objects, one without."""
    tree.add(SECOND, thing("n02084071", (0, 30, 0, 20)), thing("n01440764", (2, 7, 3, 13)))
    tree.add(FIRST, thing("n02084071", (1, 2, 4, 6), "<difficult>1</difficult>"))
    tree.add(EMPTY)
    return tree


def test_layout_of_det(det):
    content, summary = det.convert()
    assert content["categories"] == [
        {"id": 1, "name": "n01440764"},
        {"id": 2, "name": "n02084071"},
    ]
    assert content["images"] == [
        {"id": 1, "file_name": f"{FIRST}.JPEG", "width": 30, "height": 20},
        {"id": 2, "file_name": f"{SECOND}.JPEG", "width": 30, "height": 20},
        {"id": 3, "file_name": f"{EMPTY}.JPEG", "width": 30, "height": 20},
    ]
    assert content["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 4, 1, 2], "area": 2, "iscrowd": 1},
        {"id": 2, "image_id": 2, "category_id": 2}
        | {"bbox": [0, 0, 30, 20], "area": 600, "iscrowd": 0},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [2, 3, 5, 10], "area": 50, "iscrowd": 0},
    ]
    assert summary == {
        "images": 3,
        "annotations": 3,
        "ignored": 1,
        "dropped_without_area": 0,
        "dropped_outside": 0,
        "dropped_of_other_classes": 0,
        "categories": 2,
        "left_out": [],
        "dropped": [],
        "swapped": [],
        "alike": [],
    }
    assert [path.name for path in det.out.parent.iterdir()] == ["det.json"]


def test_dataset_reads_it(det):
    det.convert()
    dataset = CheckedCocoDataset(
        ann_file=str(det.out),
        data_prefix={"img": f"{det.images}/"},
        metainfo={"classes": ()},
        filter_cfg={"filter_empty_gt": True},
        pipeline=[],
    )
    assert dataset.metainfo["classes"] == ("n01440764", "n02084071")
    first, second = (dataset.get_data_info(index) for index in range(2))
    assert len(dataset) == 2  # one image has no object
    assert first["instances"] == [{"ignore_flag": 1, "bbox": [1, 4, 2, 6], "bbox_label": 1}]
    assert second["instances"][1] == {"ignore_flag": 0, "bbox": [2, 3, 7, 13], "bbox_label": 0}
    assert Path(second["img_path"]).is_file()


def test_pascal_voc_counts_pixels_from_one(tmp_path):
    """A pixel column that is all of the box: xmin = xmax, width 1."""
    (tmp_path / "JPEGImages").mkdir()
    write_image(tmp_path / "JPEGImages" / "a.jpg", np.zeros((20, 30, 3), np.uint8))
    write_voc_annotation(
        tmp_path / "Annotations" / "a.xml",
        (20, 30),
        [(0, 0, 30, 20), (4, 5, 5, 9)],
        ["cat", "dog"],
    )
    folders = tmp_path / "Annotations", tmp_path / "JPEGImages"
    convert_xml_tree(*folders, tmp_path / "voc.json", one_based=True)
    content = json.loads((tmp_path / "voc.json").read_text())
    assert [item["bbox"] for item in content["annotations"]] == [[0, 0, 30, 20], [4, 5, 1, 4]]
    assert content["info"]["one_based"] is True


def test_beside_mmdets_reading_of_voc(tmp_path):
    """The same boxes, but for the last row and column of pixels."""
    voc = make_voc(tmp_path / "VOC2007", {"train": 4}, ("cat", "dog", "cow"))
    folders = voc / "Annotations", voc / "JPEGImages"
    convert_xml_tree(*folders, tmp_path / "voc.json", ["cat", "dog", "cow"], one_based=True)
    ours = CheckedCocoDataset(
        ann_file=str(tmp_path / "voc.json"),
        data_prefix={"img": f"{voc}/JPEGImages/"},
        metainfo={"classes": ("cat", "dog", "cow")},
        pipeline=[],
    )
    theirs = VOCDataset(
        data_root=str(tmp_path),
        ann_file="VOC2007/ImageSets/Main/train.txt",
        data_prefix={"sub_data_root": "VOC2007/"},
        metainfo={"classes": ("cat", "dog", "cow")},
        pipeline=[],
    )
    assert len(ours) == len(theirs) == 4
    for index in range(4):
        own, other = ours.get_data_info(index), theirs.get_data_info(index)
        assert own["img_path"] == other["img_path"]
        assert (own["height"], own["width"]) == (other["height"], other["width"])
        for mine, stock in zip(own["instances"], other["instances"], strict=True):
            assert mine["bbox_label"] == stock["bbox_label"]
            assert np.subtract(mine["bbox"], stock["bbox"]).tolist() == [0, 0, 1, 1]


def test_classes_in_their_order(det):
    content, summary = det.convert(classes=["n02084071", "n99999999"])
    assert [category["name"] for category in content["categories"]] == ["n02084071", "n99999999"]
    assert [item["category_id"] for item in content["annotations"]] == [1, 1]
    assert (summary["annotations"], summary["dropped_of_other_classes"]) == (2, 1)


def test_stems_choose_files(det):
    content, _ = det.convert(stems=[EMPTY, SECOND])
    names = [image["file_name"] for image in content["images"]]
    assert names == [f"{EMPTY}.JPEG", f"{SECOND}.JPEG"]
    assert {item["image_id"] for item in content["annotations"]} == {2}


@pytest.mark.parametrize("flag", ["difficult", "ignore"])
@pytest.mark.parametrize(("value", "iscrowd"), [(0, 0), (1, 1)])
def test_flags_that_mean_ignore(tree, flag, value, iscrowd):
    flagged = thing("cat", (0, 5, 0, 5), f"<{flag}>{value}</{flag}>")
    tree.add("a", flagged, thing("cat", (0, 5, 0, 5)))
    item, _ = tree.convert()[0]["annotations"]
    assert item["iscrowd"] == iscrowd


def test_files_named_twice_are_taken_once(det):
    content, summary = det.convert(stems=[SECOND, FIRST, SECOND])
    names = [image["file_name"] for image in content["images"]]
    assert names == [f"{SECOND}.JPEG", f"{FIRST}.JPEG"]
    assert summary["images"] == 2


def test_file_with_other_content_is_not_written_over(det):
    content, summary = det.convert()
    before = det.out.stat()
    assert det.convert() == (content, summary)
    with pytest.raises(FileExistsError, match=r"det\.json is there with other content.*Move it"):
        det.convert(one_based=True)
    after = det.out.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in det.out.parent.iterdir()] == ["det.json"]


def test_folder_as_output_is_noticed_before_the_work(tree):
    tree.out.mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"det\.json is a folder"):
        tree.convert()  # without a file to read, which would be the next error


def test_each_folder_of_images_is_listed_once(tree, monkeypatch):
    """Also where files come in turns from many folders."""
    for folder in range(40):
        for name in "ab":
            tree.add(f"{folder}/{name}", thing("cat", (0, 5, 0, 5)))
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: listed.append(place) or scandir(place))
    stems = [f"{folder}/{name}" for name in "ab" for folder in range(40)]
    tree.convert(stems=stems)
    assert len(listed) == 40


def test_boxes_without_area_are_dropped(tree):
    boxes = ((5, 5, 0, 9), (0, 9, 8, 2), (9, 5, 9, 5), (0, 9.5, 0, 4))
    tree.add("a", *(thing("cat", corners) for corners in boxes))
    content, summary = tree.convert()
    assert [item["bbox"] for item in content["annotations"]] == [[0, 0, 9.5, 4]]
    assert [item["id"] for item in content["annotations"]] == [1]
    assert summary["dropped_without_area"] == 3
    assert [item["file"] for item in summary["dropped"]] == ["a.xml"] * 3
    assert summary["dropped"][0]["reason"] == (
        "<object> 'cat', x, y, width, height [5, 0, 0, 9], has no area"
    )
    assert content["info"]["dropped"] == summary["dropped"]


def test_broken_files_are_left_out_and_named(det):
    det.add("0/noimage", thing("cat", (0, 5, 0, 5)), suffix="")
    det.add("0/zero", thing("cat", (0, 5, 0, 5)), size=(0, 20))
    det.add("0/nan", thing("cat", ("nan", 5, 0, 5)))
    det.add("0/word", thing("cat", ("left", 5, 0, 5)))
    det.add("0/nameless", thing(" ", (0, 5, 0, 5)))
    det.add("0/cut")
    det.write("0/cut", "<annotation><size><width>3")
    det.add("0/sizeless")
    det.write("0/sizeless", "<annotation></annotation>")
    det.add("0/coded")
    det.write("0/coded", '<?xml version="1.0" encoding="utf-99"?><annotation/>')
    det.add("0/twice", thing("cat", (0, 5, 0, 5)))
    (det.images / "0" / "twice.png").touch()
    content, summary = det.convert(stems=None)
    reasons = {item["file"]: item["reason"] for item in summary["left_out"]}
    assert list(reasons) == [
        f"0/{name}.xml"
        for name in (
            "coded",
            "cut",
            "nameless",
            "nan",
            "noimage",
            "sizeless",
            "twice",
            "word",
            "zero",
        )
    ]
    assert "no element found" in reasons["0/cut.xml"] or "unclosed" in reasons["0/cut.xml"]
    assert reasons["0/coded.xml"].startswith("it declares an unknown encoding: utf-99")
    assert reasons["0/nameless.xml"].startswith("<object> has no <name>")
    assert reasons["0/nan.xml"] == (
        "<xmin> of <object> 'cat' is 'nan'; expected a number, with a decimal point"
    )
    assert reasons["0/noimage.xml"].endswith("0/noimage.*, found none")
    assert reasons["0/sizeless.xml"].startswith("<annotation> has no <size>")
    assert reasons["0/twice.xml"].endswith("found 2 (twice.JPEG, twice.png)")
    assert "<xmin> of <object> 'cat' is 'left'; expected a number" in reasons["0/word.xml"]
    assert reasons["0/zero.xml"].startswith("<size> is 0 x 20; expected")
    assert len(content["images"]) == summary["images"] == 3
    assert content["info"]["left_out"] == summary["left_out"]


def test_nothing_usable(tree):
    tree.images.mkdir(parents=True)
    with pytest.raises(NotADirectoryError, match="is no folder"):
        tree.convert()
    tree.annotations.mkdir(parents=True)
    with pytest.raises(ValueError, match="found 0 XML files"):
        tree.convert()
    tree.add("a", thing("cat", (0, 5, 0, 5)), suffix="")
    with pytest.raises(ValueError, match=r"found 1 XML files and none that is usable; a\.xml"):
        tree.convert()
    tree.add("a")
    with pytest.raises(ValueError, match="none of 1 XML files has an object"):
        tree.convert()
    tree.add("a", thing("cat", (0, 5, 0, 5)))
    with pytest.raises(ValueError, match=r"has an object to train on.*classes: 1, .* dog"):
        tree.convert(classes=["dog"])
    tree.add("a", thing("cat", (5, 5, 0, 5)), thing("cat", (0, 5, 0, 5), "<ignore>1</ignore>"))
    with pytest.raises(ValueError, match=r"has an object to train on.*classes: 1, .* cat"):
        tree.convert()
    assert not tree.out.exists()


def test_tool(det, tmp_path, run_here):
    lines = f"\ufeff{SECOND} 1\n{FIRST} -1\nno where 0\nno where\n{SECOND}\t20121\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "classes.txt").write_text("n02084071\nn01440764\n")
    command = [
        *("xml_to_coco", det.annotations, det.images, "--out", det.out),
        *("--list", tmp_path / "list.txt", "--classes", tmp_path / "classes.txt"),
    ]
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    assert "2 images, 3 annotations, 1 ignored, 0 dropped_without_area" in done.stdout
    assert "warning: files left out: 1," in done.stderr
    assert "no where.xml: expected one image" in done.stderr
    content = json.loads(det.out.read_text())
    assert [image["file_name"] for image in content["images"]] == [
        f"{SECOND}.JPEG",
        f"{FIRST}.JPEG",
    ]
    assert [category["name"] for category in content["categories"]] == ["n02084071", "n01440764"]
    done = run_here(*command, "--one-based")
    assert done.returncode == 1
    assert re.search(r"error: .*det\.json is there with other content", done.stderr)
    det.out.unlink()
    done = run_here(*command, "--one-based")
    assert done.returncode == 0, done.stderr
    boxes = [item["bbox"] for item in json.loads(det.out.read_text())["annotations"]]
    assert boxes[1] == [1, 2, 6, 11]


def test_tool_takes_the_classes_of_another_file(det, tmp_path, run_here):
    """A test list that lacks a class, or has more, keeps the order of the training list's."""
    names = [{"id": 3, "name": "n02084071"}, {"id": 9, "name": "zebra"}]
    (tmp_path / "train.json").write_text(json.dumps({"categories": names}))
    command = ("xml_to_coco", det.annotations, det.images, "--out", det.out)
    command = (*command, "--classes", tmp_path / "train.json")
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    assert "1 dropped_of_other_classes" in done.stdout
    categories = json.loads(det.out.read_text())["categories"]
    assert [category["name"] for category in categories] == ["n02084071", "zebra"]
    (tmp_path / "train.json").write_text("[]")
    done = run_here(*command)
    assert done.returncode == 1
    assert "train.json has no list of categories" in done.stderr


def test_tool_says_what_is_wrong(tree, run_here):
    done = run_here("xml_to_coco", tree.annotations, tree.images, "--out", tree.out)
    assert done.returncode == 1
    assert re.search(r"error: .* is no folder", done.stderr)
