"""COCO and VOC sets in the layouts of their exports; few-shot draws and conversion of all."""

import json
import shutil
from pathlib import Path

import pytest

from dap.datasets.conversion import convert
from dap.datasets.detection_data import read_detection_data
from dap.few_shot import make_few_shot_subsets
from dap.testing import make_coco, make_voc


def names(split):
    return sorted(image["file_name"] for image in split.content["images"])


def all_there(split):
    return all(Path(split.images, name).is_file() for name in names(split))


def test_coco_file_with_its_images_beside(tmp_path):
    path = make_coco(tmp_path, images=4)

    split = read_detection_data(path)["train"]

    assert split.unchanged
    assert split.images == str(tmp_path / "images")
    assert split.content["annotations"] == json.loads(path.read_text())["annotations"]


def test_coco_of_roboflow(tmp_path):
    for number, folder in enumerate(("train", "valid")):
        path = make_coco(tmp_path / folder, images=3 + number, seed=number)
        path.rename(path.with_name("_annotations.coco.json"))
        for image in (path.parent / "images").iterdir():
            image.rename(path.parent / image.name)

    splits = read_detection_data(tmp_path)

    assert {name: len(names(split)) for name, split in splits.items()} == {"train": 3, "val": 4}
    assert splits["val"].images == str(tmp_path / "valid")


def test_coco_of_cvat(tmp_path):
    path = make_coco(tmp_path, images=3)
    (tmp_path / "annotations").mkdir()
    path.rename(tmp_path / "annotations" / "instances_default.json")
    shutil.move(tmp_path / "images", tmp_path / "x")
    shutil.move(tmp_path / "x", tmp_path / "images" / "default")

    split = read_detection_data(tmp_path)["train"]

    assert split.images == str(tmp_path / "images" / "default")


def test_coco_of_label_studio_has_backslashes(tmp_path):
    path = make_coco(tmp_path, images=3)
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = f"images\\{image['file_name']}"
    path.write_text(json.dumps(content))

    split = read_detection_data(path.rename(tmp_path / "result.json"))["train"]

    assert split.images == str(tmp_path)
    assert not split.unchanged
    assert all_there(split)


def test_coco_whose_images_are_nowhere(tmp_path):
    path = make_coco(tmp_path, images=3)
    shutil.rmtree(tmp_path / "images")

    with pytest.raises(
        ValueError, match=r"such as 000000\.jpg, are in none of .*name their folder"
    ):
        read_detection_data(path)


def test_voc_with_lists_has_mmdets_boxes(tmp_path):
    from mmdet.datasets import VOCDataset

    root = make_voc(tmp_path / "VOC2007", {"trainval": 3, "test": 2}, ("aeroplane", "bird", "car"))

    splits = read_detection_data(root)

    assert {name: len(names(split)) for name, split in splits.items()} == {"train": 3, "val": 2}
    dataset = VOCDataset(
        data_root=str(tmp_path),
        ann_file="VOC2007/ImageSets/Main/trainval.txt",
        data_prefix={"sub_data_root": "VOC2007/"},
        pipeline=[],
        metainfo={"classes": splits["train"].classes},
    )
    theirs = [
        [x1, y1, x2 - x1, y2 - y1]
        for index in range(3)
        for x1, y1, x2, y2 in (one["bbox"] for one in dataset.get_data_info(index)["instances"])
    ]
    assert [item["bbox"] for item in splits["train"].content["annotations"]] == theirs


def test_voc_of_label_studio_has_no_lists(tmp_path):
    root = make_voc(tmp_path, {"trainval": 3})
    shutil.rmtree(root / "ImageSets")
    (root / "JPEGImages").rename(root / "images")

    split = read_detection_data(root)["train"]

    assert len(names(split)) == 3
    assert all_there(split)


def test_voc_of_roboflow_has_all_in_one_folder(tmp_path):
    for folder in ("train", "valid"):
        root = make_voc(tmp_path / "made", {"trainval": 2}, seed=len(folder))
        (tmp_path / folder).mkdir()
        for file in [*root.glob("Annotations/*"), *root.glob("JPEGImages/*")]:
            file.rename(tmp_path / folder / file.name)
        shutil.rmtree(root)

    splits = read_detection_data(tmp_path)

    assert names(splits["train"]) == ["train/000000.jpg", "train/000001.jpg"]
    assert names(splits["val"]) == ["valid/000000.jpg", "valid/000001.jpg"]


@pytest.mark.parametrize("linked", [False, True])
def test_voc_image_that_is_missing_is_left_out(tmp_path, linked):
    """Also a link to a disk that is not mounted."""
    root = make_voc(tmp_path, {"train": 3})
    missing = root / "JPEGImages" / "000001.jpg"
    missing.unlink()
    if linked:
        missing.symlink_to(tmp_path / "not mounted" / "000001.jpg")

    split = read_detection_data(root)["train"]

    assert names(split) == ["JPEGImages/000000.jpg", "JPEGImages/000002.jpg"]
    assert [Path(item["file"]).name for item in split.left_out] == ["000001.xml"]


def test_voc_image_in_two_spellings(tmp_path):
    """The usual one is taken, whichever the folder lists first."""
    root = make_voc(tmp_path, {"train": 1})
    image = root / "JPEGImages" / "000000.jpg"
    for suffix in (".JPG", ".PNG"):
        shutil.copy(image, image.with_suffix(suffix))

    assert names(read_detection_data(root)["train"]) == ["JPEGImages/000000.jpg"]


def test_bad_xml_is_named(tmp_path):
    root = make_voc(tmp_path, {"train": 2})
    (root / "Annotations" / "000001.xml").write_text("<annotation>")

    with pytest.raises(ValueError, match=r"000001\.xml is no annotation in VOC layout"):
        read_detection_data(root)


def test_folder_of_no_format(tmp_path):
    (tmp_path / "notes.md").write_text("x")

    with pytest.raises(ValueError, match=r"no detection set is recognised; found notes\.md\."):
        read_detection_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        read_detection_data(tmp_path / "nowhere")


def test_few_shot_of_a_folder_is_that_of_its_coco_file(tmp_path):
    root = make_voc(tmp_path / "shapes", {"train": 12, "val": 2})
    convert(root, tmp_path / "coco" / "shapes.json")

    [ours] = make_few_shot_subsets(tmp_path / "a", [2], data=root)
    [same] = make_few_shot_subsets(tmp_path / "b", [2], coco=tmp_path / "coco" / "shapes.json")

    assert ours.name == same.name == "shapes_2shot_seed0"
    first, second = (
        json.loads((folder / "annotations.json").read_text()) for folder in (ours, same)
    )
    assert len(first["images"]) == 6
    assert first["images"] == second["images"]
    assert first["annotations"] == second["annotations"]


def test_few_shot_takes_one_source(tmp_path):
    with pytest.raises(ValueError, match="expected either folders"):
        make_few_shot_subsets(tmp_path, [1], coco="a.json", data="b")


def test_conversion_of_a_split(tmp_path, run_here):
    root = make_voc(tmp_path / "voc", {"train": 3, "val": 2})

    done = run_here("convert_annotations", root, tmp_path / "val.json", "--split", "val")

    assert done.returncode == 0, done.stderr
    assert "2 images, 4 boxes; file names are relative to" in done.stdout + done.stderr
    assert read_detection_data(tmp_path / "val.json", root)["train"].classes == (
        "blue",
        "green",
        "red",
    )
    with pytest.raises(ValueError, match="has no split 'test'; expected one of train, val"):
        convert(root, tmp_path / "test.json", "test")
    with pytest.raises(ValueError, match=r"name it …\.json"):
        convert(root, tmp_path / "folder")
