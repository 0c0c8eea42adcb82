"""YOLO sets as people have them: boxes worked out by hand, layouts of exports, and bad input."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dap.datasets.detection_data import read_detection_data
from dap.datasets.yolo import label_file

NAMES = "names: [cat, dog]\nnc: 2\n"


def put_image(path, size_wh=(200, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((size_wh[1], size_wh[0], 3), np.uint8))


def put_label(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_set(root, text="1 0.5 0.5 0.2 0.4\n", yaml=f"path: .\ntrain: images/train\n{NAMES}"):
    put_image(root / "images/train/a.jpg")
    put_label(root / "labels/train/a.txt", text)
    (root / "data.yaml").write_text(yaml)
    return root


def boxes(split):
    return [item["bbox"] for item in split.content["annotations"]]


def test_box_is_centre_and_size_in_shares(tmp_path):
    split = read_detection_data(make_set(tmp_path))["train"]

    assert split.classes == ("cat", "dog")
    # centre (100, 50) of 200 x 100, size 40 x 40
    assert boxes(split) == [pytest.approx([80, 30, 40, 40])]
    assert [item["category_id"] for item in split.content["annotations"]] == [2]
    assert [i["file_name"] for i in split.content["images"]] == ["a.jpg"]
    assert (split.content["images"][0]["width"], split.content["images"][0]["height"]) == (200, 100)
    assert Path(split.images, "a.jpg").is_file()


def test_outline_becomes_its_box(tmp_path):
    split = read_detection_data(make_set(tmp_path, "0 0.1 0.2 0.5 0.2 0.3 0.8\n"))["train"]

    assert boxes(split) == [pytest.approx([20, 20, 80, 60])]
    outline = split.content["annotations"][0]["segmentation"]
    assert outline == [pytest.approx([20, 20, 100, 20, 60, 80])]
    assert split.has_masks


def test_boxes_over_the_edge_are_clipped(tmp_path):
    split = read_detection_data(make_set(tmp_path, "0 0.95 0.5 0.2 1.0\n"))["train"]

    assert boxes(split) == [pytest.approx([170, 0, 30, 100])]
    assert not split.has_masks


def test_names_by_number_and_splits(tmp_path):
    yaml = "train: images/train\nval: images/val\nnames: {1: dog, 0: cat}\n"
    root = make_set(tmp_path, yaml=yaml)
    put_image(root / "images/val/b.png")
    put_label(root / "labels/val/b.txt", "")

    splits = read_detection_data(root / "data.yaml")

    assert {name: len(split.content["images"]) for name, split in splits.items()} == {
        "train": 1,
        "val": 1,
    }
    assert splits["val"].classes == ("cat", "dog")
    assert splits["val"].content["annotations"] == []


def test_roboflow_names_folders_from_one_level_up(tmp_path):
    put_image(tmp_path / "train/images/a.jpg")
    put_label(tmp_path / "train/labels/a.txt", "0 0.5 0.5 1 1")
    put_image(tmp_path / "valid/images/b.jpg")
    put_label(tmp_path / "valid/labels/b.txt", "1 0.5 0.5 0.5 0.5")
    yaml = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{NAMES}"
    (tmp_path / "data.yaml").write_text(yaml)

    splits = read_detection_data(tmp_path)

    assert boxes(splits["train"]) == [[0, 0, 200, 100]]
    assert boxes(splits["val"]) == [[50, 25, 100, 50]]
    assert set(splits) == {"train", "val"}


def test_label_studio_has_classes_and_no_yaml(tmp_path):
    put_image(tmp_path / "images/a.jpg")
    put_label(tmp_path / "labels/a.txt", "1 0.5 0.5 0.5 0.5")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")

    split = read_detection_data(tmp_path)["train"]

    assert boxes(split) == [[50, 25, 100, 50]]
    assert split.classes == ("cat", "dog")


def test_cvat_has_labels_beside_the_images(tmp_path):
    put_image(tmp_path / "obj_train_data/a.jpg")
    put_label(tmp_path / "obj_train_data/a.txt", "0 0.5 0.5 0.5 0.5")
    put_image(tmp_path / "obj_valid_data/b.jpg")
    put_label(tmp_path / "obj_valid_data/b.txt", "1 0.5 0.5 1 1")
    (tmp_path / "obj.names").write_text("cat\ndog\n")

    splits = read_detection_data(tmp_path)

    assert boxes(splits["train"]) == [[50, 25, 100, 50]]
    assert boxes(splits["val"]) == [[0, 0, 200, 100]]


def test_list_of_images(tmp_path):
    root = make_set(tmp_path, yaml=f"train: train.txt\n{NAMES}")
    (root / "train.txt").write_text("data/images/train/a.jpg\n")

    assert len(read_detection_data(root)["train"].content["images"]) == 1


def test_labels_lie_in_the_last_folder_of_that_name():
    path = Path("data/images/shop/images/train/a.b.jpg")

    assert label_file(path) == Path("data/images/shop/labels/train/a.b.txt")


def test_image_that_exif_turns_has_its_shown_size(tmp_path):
    root = make_set(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (200, 100)).save(root / "images/train/a.jpg", exif=exif)

    split = read_detection_data(root)["train"]

    assert (split.content["images"][0]["width"], split.content["images"][0]["height"]) == (100, 200)
    assert boxes(split) == [pytest.approx([40, 60, 20, 80])]


def test_what_is_left_out_is_counted_and_named(tmp_path, log):
    root = make_set(tmp_path)
    put_image(root / "images/train/b.jpg")
    (root / "images/train/c.jpg").write_bytes(b"no image")
    put_label(root / "labels/train/gone.txt", "0 0.5 0.5 1 1")

    split = read_detection_data(root)["train"]

    assert [image["file_name"] for image in split.content["images"]] == ["a.jpg", "b.jpg"]
    for text in (
        "images without a label file, taken as empty: 1\n",
        "b.jpg: no ",
        "images that cannot be read: 1\n",
        "c.jpg: UnidentifiedImageError",
        "labels without an image: 1\n",
        "gone.txt",
    ):
        assert text in log()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 1 1\n\n0 0.5 0.5\n", r"a\.txt:3: 3 values; expected 5"),
        ("0 0.5 0.5 1 1 0.9\n", r"a\.txt:1: 6 values; .* a score"),
        ("2 0.5 0.5 1 1\n", r"a\.txt:1: class 2; expected 0 to 1, for the 2 names in .*data\.yaml"),
        ("0.5 0.5 0.5 1 1\n", r"class 0\.5; expected"),
        ("cat 0.5 0.5 1 1\n", r"a\.txt:1: 'cat 0\.5 0\.5 1 1'; expected numbers"),
        ("0 nan 0.5 1 1\n", "expected numbers"),
        ("0 100 50 40 40\n", r"values outside 0 to 1; expected shares .*no pixels"),
        ("0 0.5 0.5 -0.5 0.5\n", "values outside 0 to 1"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_detection_data(make_set(tmp_path, text))


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat]\nnc: 2\ntrain: images/train\n", r"names is \['cat'\] and nc 2"),
        ("names: {1: cat, 2: dog}\ntrain: images/train\n", "by numbers from 0"),
        ("names: [cat\n", "is no YAML"),
    ],
)
def test_bad_yaml_is_refused(tmp_path, yaml, message):
    with pytest.raises(ValueError, match=message):
        read_detection_data(make_set(tmp_path, yaml=yaml))


def test_training_images_that_are_not_there(tmp_path):
    root = make_set(tmp_path, yaml=f"train: elsewhere\n{NAMES}")

    with pytest.raises(FileNotFoundError, match=r"data\.yaml: no images of a training set"):
        read_detection_data(root)
