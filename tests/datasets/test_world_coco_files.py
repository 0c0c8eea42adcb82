"""COCO files as the world writes them: one reader for training sets, few-shot draws and stores."""

import codecs
import json
import os

import pytest
from mmdet.datasets import CocoDataset

from dap.coco_boxes import looks_swapped, why_left_out
from dap.coco_file import canonical_id, read_coco_file
from dap.datasets import CheckedCocoDataset, PseudoBoxDataset
from dap.few_shot import make_few_shot_subsets
from dap.store.convert import coco_to_store

SIZE = {"width": 100, "height": 80}


def content(**annotation):
    """Two images of 100 x 80 px with a box each; keys are put into the first."""
    first = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 30, 20], "area": 600}
    first |= {"iscrowd": 0} | annotation
    second = {"id": 2, "image_id": 2, "category_id": 2, "bbox": [7, 8, 20, 10], "area": 200}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", **SIZE} for i in (1, 2)],
        "annotations": [first, {**second, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "helmet"}, {"id": 2, "name": "vest"}],
    }


def write(path, given):
    path.write_text(json.dumps(given))
    return path


def train(path, kind=CheckedCocoDataset, **kwargs):
    return kind(
        ann_file=str(path),
        data_prefix={"img": "images/"},
        metainfo={"classes": ()},
        filter_cfg={"filter_empty_gt": True},
        pipeline=[],
        **kwargs,
    )


def instances(dataset):
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return [(item["bbox_label"], item["bbox"]) for info in infos for item in info["instances"]]


def few_shot(path, folder):
    (drawn,) = make_few_shot_subsets(folder / "drawn", [2], coco=path, name="x")
    return drawn / "annotations.json"


def store(path, folder):
    coco_to_store(path, folder / "store")
    return folder / "store"


BOTH = [(0, [5, 6, 35, 26]), (1, [7, 8, 27, 18])]


def edited(change):
    given = content()
    change(given)
    return given


def without(key):
    return edited(lambda given: [item.pop(key) for item in given["annotations"]])


MENDED = {
    "area absent": without("area"),
    "area null": content(area=None),
    "area not a number": content(area=float("nan")),
    "iscrowd absent": without("iscrowd"),
    "iscrowd null": content(iscrowd=None),
    "iscrowd as text": content(iscrowd="0"),
    "iscrowd false": content(iscrowd=False),
    "ids of annotations twice": content(id=2),
    "ids of annotations absent": without("id"),
    "ids of annotations null": content(id=None),
    "image_id as text": content(image_id="1"),
    "image_id as a decimal number": content(image_id=1.0),
    "category_id as text": content(category_id="1"),
    "ids of images as text": edited(lambda given: given["images"][0].update(id="1")),
    "width as a decimal number": edited(lambda given: given["images"][0].update(width=100.0)),
}


@pytest.mark.parametrize("kind", MENDED)
def test_what_can_only_mean_one_thing_is_mended_alike_everywhere(tmp_path, kind):
    path = write(tmp_path / "a.json", MENDED[kind])
    assert instances(train(path)) == BOTH
    assert instances(train(store(path, tmp_path), PseudoBoxDataset)) == BOTH
    drawn = few_shot(path, tmp_path)
    assert instances(train(drawn)) == BOTH
    # The file of the draw needs no mending: plain CocoDataset reads it.
    stock = CocoDataset(
        ann_file=str(drawn),
        data_prefix={"img": "images/"},
        metainfo={"classes": ("helmet", "vest")},
        pipeline=[],
    )
    assert instances(stock) == BOTH


@pytest.mark.parametrize("kind", sorted(set(MENDED) - {"iscrowd absent"}))
def test_what_was_mended_is_counted_and_named(tmp_path, kind, capsys):
    coco = read_coco_file(write(tmp_path / "a.json", MENDED[kind]))
    if kind in ("iscrowd null", "iscrowd false", "width as a decimal number"):
        assert coco.repaired == ()  # another word for the same, in all readers
        return
    (what,) = coco.repaired
    assert any(word in what for word in ("area", "iscrowd", "ids of annotations", "_id"))
    assert "such as" in what
    assert f"{tmp_path / 'a.json'}: repaired in memory: {what}" in capsys.readouterr().out


def test_backslashes_in_file_names(tmp_path):
    given = edited(lambda given: given["images"][0].update(file_name="sub\\1.jpg"))
    path = write(tmp_path / "a.json", given)
    assert train(path).get_data_info(0)["img_path"] == "images/sub/1.jpg"
    reopened = train(store(path, tmp_path), PseudoBoxDataset)
    assert reopened.get_data_info(0)["img_path"] == "images/sub/1.jpg"
    assert json.loads(few_shot(path, tmp_path).read_text())["images"][0]["file_name"] == "sub/1.jpg"


def test_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(content(), indent=1).encode())
    assert instances(train(path)) == instances(train(few_shot(path, tmp_path))) == BOTH
    assert instances(train(store(path, tmp_path), PseudoBoxDataset)) == BOTH


@pytest.mark.parametrize("read", [lambda path, _: train(path), few_shot, store])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (content(image_id=9), "annotation 1: unknown image_id 9, as 1 of 2 annotations have"),
        (content(image_id=None), "annotation 1: unknown image_id None"),
        (content(category_id=9), "annotation 1: unknown category_id 9"),
        (content(bbox=None), "annotation 1: bbox None; expected 4 numbers"),
        (content(bbox=[5, 6, float("inf"), 7]), "annotation 1: bbox .*; expected 4 numbers"),
        (content(bbox=[5, 6, "30", 7]), "annotation 1: bbox .*; expected 4 numbers"),
        (content(area="big"), "annotation 1: area 'big'; expected a number"),
        (content(iscrowd="maybe"), "annotation 1: iscrowd 'maybe'; expected 0 or 1"),
        (
            edited(lambda given: given["images"][1].update(id="1")),
            r"two entries of image have the same id 1 \(as 1 and '1'\)",
        ),
        (edited(lambda given: given["images"][1].pop("id")), r"images\[1\]: id None"),
        (edited(lambda given: given["images"][1].pop("width")), "image 2: width None; expected"),
        (edited(lambda given: given["images"][1].update(height=0)), "image 2: height 0"),
        (edited(lambda given: given["images"][1].update(file_name=3)), "image 2: file_name 3"),
        (
            edited(lambda given: given["categories"][1].update(name="helmet")),
            "categories 1 and 2 have the same name 'helmet'",
        ),
        (
            edited(lambda given: given["categories"][1].update(id=1)),
            "two entries of category have the same id 1",
        ),
        (edited(lambda given: given.pop("annotations")), "has no list of annotations"),
        ([content()], "has no list of images, annotations, categories"),
    ],
)
def test_what_cannot_be_right_is_refused_alike_everywhere(tmp_path, read, given, message):
    path = write(tmp_path / "a.json", given)
    with pytest.raises(ValueError, match=rf"a\.json:? {message}"):
        read(path, tmp_path)
    assert os.listdir(tmp_path) == ["a.json"]


def test_utf16_is_named(tmp_path):
    (tmp_path / "a.json").write_bytes(json.dumps(content()).encode("utf-16"))
    with pytest.raises(ValueError, match=r"a\.json is no json in UTF-8"):
        read_coco_file(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("bbox", "area", "reason"),
    [
        ([0, 0, 100, 80], 1, None),
        ([-20, -10, 30, 20], 1, None),  # partly outside
        ([99, 79, 1, 1], 1, None),
        ([100, 10, 30, 20], 1, "outside the stated size of the image"),
        ([10, -20, 30, 20], 1, "outside the stated size of the image"),
        ([10, 10, 0.99, 20], 1, "less than a pixel wide or high"),
        ([10, 10, 20, -5], 1, "less than a pixel wide or high"),
        ([10, 10, 20, 5], 0, "with an area of 0 or less"),
    ],
)
def test_reason_is_that_of_mmdet(tmp_path, bbox, area, reason):
    assert why_left_out(bbox, area, (100, 80)) == reason
    path = write(tmp_path / "a.json", content(bbox=bbox, area=area))
    stock = CocoDataset(
        ann_file=str(path),
        data_prefix={"img": "images/"},
        metainfo={"classes": ("helmet", "vest")},
        pipeline=[],
    )
    assert bool(stock.get_data_info(0)["instances"]) is (reason is None)


@pytest.mark.parametrize("read", [lambda path, _: train(path), few_shot, store])
def test_boxes_that_mmdet_leaves_out_are_counted_and_named(tmp_path, read, capsys):
    given = content(bbox=[120, 10, 30, 20])
    given["annotations"].append({**given["annotations"][1], "id": 3, "bbox": [4, 4, 0.5, 9]})
    read(write(tmp_path / "a.json", given), tmp_path)
    shown = capsys.readouterr().out
    assert "a.json: 2 of 3 boxes are left out of training: 1 outside the stated size" in shown
    assert "such as annotation 1 of 1.jpg (100 x 80), bbox [120, 10, 30, 20]" in shown
    assert "1 less than a pixel wide or high, such as annotation 3 of 2.jpg" in shown
    assert "swapped" not in shown


def test_store_names_what_it_leaves_out(tmp_path, capsys):
    given = content(bbox=[120, 10, 30, 20])
    given["annotations"].append({**given["annotations"][1], "id": 3, "bbox": [4, 4, 0.5, 9]})
    folder = store(write(tmp_path / "a.json", given), tmp_path)
    capsys.readouterr()
    assert len(instances(train(folder, PseudoBoxDataset))) == 1
    shown = capsys.readouterr().out
    assert "store: 2 of 3 boxes are left out of training: " in shown
    assert "1.jpg (100 x 80), x1 y1 x2 y2 [120.0, 10.0, 150.0, 30.0]" in shown
    assert "1 less than a pixel wide or high, such as image 2, 2.jpg" in shown


PHONE = [[5, 70, 40, 25], [5, 62, 30, 30], [5, 5, 30, 30]]  # upright: 60 wide, 100 high


def phone():
    """Case of a photograph that EXIF turns: 100 x 60 is stated, and 60 x 100 was annotated."""
    given = content()
    given["images"] = [{"id": 1, "file_name": "phone.jpg", "width": 100, "height": 60}]
    given["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 900, "iscrowd": 0}
        for i, box in enumerate(PHONE, 1)
    ]
    return given


@pytest.mark.parametrize(
    "read",
    [
        lambda path, _: train(path),
        few_shot,
        store,
        lambda path, folder: train(store(path, folder), PseudoBoxDataset),
    ],
)
def test_size_that_looks_swapped_is_named_as_such(tmp_path, read, capsys):
    read(write(tmp_path / "a.json", phone()), tmp_path)
    shown = capsys.readouterr().out
    assert "2 of 3 boxes are left out of training: 2 outside the stated size" in shown
    assert "stated size looks swapped, as where EXIF turns a photograph: 1. The boxes" in shown
    assert "phone.jpg (100 x 60)" in shown


def test_swapped_by_hand():
    assert looks_swapped(PHONE, (100, 60))
    assert not looks_swapped(PHONE, (60, 100))  # fits
    assert not looks_swapped([*PHONE, [50, 5, 40, 5]], (100, 60))  # reaches 90, not within 60
    assert not looks_swapped([[0, 0, 60, 61]], (100, 60))  # a pixel beyond is a slip


def test_reason_stands_in_the_error_when_no_box_is_left(tmp_path):
    given = content(bbox=[120, 10, 30, 20])
    given["annotations"].pop()
    path = write(tmp_path / "a.json", given)
    with pytest.raises(ValueError, match=r"none of 2 images has a box.*1 outside the stated size"):
        train(path)
    with pytest.raises(ValueError, match=r"none of 2 images has a box.*1 outside the stated size"):
        train(store(path, tmp_path), PseudoBoxDataset)


def test_images_that_are_left_out_are_counted(tmp_path, capsys):
    given = content()
    given["images"] += [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in (3, 4)]
    given["annotations"].append({**given["annotations"][0], "id": 3, "image_id": 3})
    dataset = CheckedCocoDataset(
        ann_file=str(write(tmp_path / "a.json", given)),
        data_prefix={"img": "images/"},
        metainfo={"classes": ()},
        filter_cfg={"filter_empty_gt": True, "min_size": 32},
        pipeline=[],
    )
    assert len(dataset) == 2
    shown = capsys.readouterr().out
    assert "2 of 4 images are left out of training" in shown
    assert "2 have a side below 32 px (filter_cfg.min_size), such as images/3.jpg" in shown


def test_test_set_needs_no_annotations(tmp_path):
    given = content()
    del given["annotations"]
    path = write(tmp_path / "a.json", given)
    assert len(train(path, test_mode=True)) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1), ("1", 1), (" 1 ", 1), (1.0, 1), ("-3", -3), ("01", "01"), ("a1", "a1")]
    + [(value, None) for value in (None, True, 1.5, "", [])],
)
def test_ids(value, expected):
    found = canonical_id(value)
    assert (found, type(found)) == (expected, type(expected))
