"""A store as a COCO file, a COCO file as a store, and back."""

import hashlib
import json
import os

import pytest

from dap.pseudo_boxes import PseudoBoxStore
from dap.store import coco_checks, coco_source, convert, writer
from dap.store.convert import coco_to_store, convert_annotations, store_to_coco
from dap.store.writer import StoreWriter
from dap.testing import make_class_folders
from tests.support.stores import interrupted_writing
from tests.support.zoo import zoo_run

CATEGORIES = [{"id": 9, "name": "n9"}, {"id": 4, "name": "n4", "supercategory": "bird"}]


def write_store(folder, count=200):
    """A run with awkward ids and names, images without boxes and one that failed."""
    described = {
        "settings": {"rule": "paper", "thresholds": [0.3, 0.2]},
        "classifier": {"backbone": "ResNet"},
        "image_list": {"count": count, "root": "/data", "list_sha256": "0" * 64},
        "shard_size": 64,
        "categories": CATEGORIES,
    }
    records = []
    for i in range(count):
        box = [0.01 * i, 1.1, 20 + 0.03 * i, 33.33, i % 2, i % 3 // 2]
        boxes = [box, [1, 1, 1.01, 40.55, 0, 255]][: i % 3]
        record = {"id": 3 * (count - i), "file_name": f"ü/{i}.jpg", "height": 64, "width": 64 + i}
        record |= {"boxes": boxes, "top1": True}
        records.append(record if boxes else {**record, "reason": "its map is constant"})
    records[7] = {"id": 1, "file_name": os.fsdecode(b"\xff.jpg"), "reason": "it is no image"}
    writer = StoreWriter(folder, described)
    for shard in writer.begin():
        writer.write(shard, [records[i] for i in writer.indices(shard)])
    writer.finish()
    return folder


def foreign():
    """A COCO file as others write it: annotations in no order, more fields, sizes first."""
    return {
        "annotations": [
            annotation(5, 70, [1.239, 2, 3.001, 4], threshold=0.5),
            annotation(6, 50, [10, 10, 5.5, 5], 4, threshold=0.25, segmentation=[[1, 2, 3, 4]]),
            annotation(2, 70, [0.1, 0.2, 50.2, 60.25], 4),
            annotation(7, 70, [3, 3, 0.004, 9]),
            annotation(8, 50, [3, 3, 2, 9], area=0, segmentation=[], score=0.5),
        ],
        "images": [
            {"height": 80, "width": 100, "id": 70, "file_name": "b.jpg", "license": 1},
            {"height": 90, "width": 110, "id": 60, "file_name": "c.jpg", "license": None},
            {"height": 70, "width": 90, "id": 50, "file_name": "a.jpg"},
        ],
        "categories": [dict(category) for category in CATEGORIES],
        "licenses": [{"id": 1}],
    }


def annotation(number, image_id, bbox, category_id=9, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        **more,
    }


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store") / "boxes")


@pytest.fixture
def warnings(monkeypatch):
    said = []
    for module in (coco_checks, convert, writer):
        monkeypatch.setattr(module, "print_log", lambda message, *_, **__: said.append(message))
    return said


class TestRoundTrip:
    def test_store_to_json_and_twice_more(self, store, tmp_path):
        json1, json2 = tmp_path / "1.json", tmp_path / "2.json"
        store_to_coco(store, json1)
        assert json1.read_bytes() == (store / "annotations.json").read_bytes()
        coco_to_store(json1, tmp_path / "2")
        store_to_coco(tmp_path / "2" / "manifest.json", json2)
        assert json2.read_bytes() == json1.read_bytes()
        assert (tmp_path / "2" / "annotations.json").read_bytes() == json1.read_bytes()
        first, second = PseudoBoxStore(store), PseudoBoxStore(tmp_path / "2")
        assert len(second) == len(first) - 1  # the image that failed is in no json
        assert second.thresholds == first.thresholds == [0.3, 0.2]
        assert second.categories == CATEGORIES

    def test_boxes_images_and_ids_are_those_of_the_store(self, store, tmp_path):
        coco_to_store(store / "annotations.json", tmp_path / "2")
        held = [[], []]
        for place, found in zip((store, tmp_path / "2"), held, strict=True):
            every = ((s, row) for s in PseudoBoxStore(place).shards for row in range(len(s)))
            for shard, row in every:
                if shard.sizes_hw[0][row]:
                    sizes = [int(side[row]) for side in shard.sizes_hw]
                    boxes = [column.tolist() for column in shard.boxes_of(row)]
                    found.append((int(shard.ids[row]), shard.file_name(row), sizes, boxes))
        assert held[0] == held[1]
        assert held[0][1] == (597, "ü/1.jpg", [64, 65], [[[0.01, 1.1, 20.03, 33.33]], [1], [0]])

    def test_same_content_in_another_layout(self, store, tmp_path):
        """Held in memory, and in any order, it gives the same boxes."""
        content = json.loads((store / "annotations.json").read_text())
        content["annotations"].sort(key=lambda item: (item["image_id"], -item["id"]))
        for item in content["annotations"]:
            item["id"] = -item["id"]
        path = write_json(tmp_path / "other.json", content)
        coco_to_store(path, tmp_path / "2")
        again = json.loads((tmp_path / "2" / "annotations.json").read_text())
        assert again["images"] == content["images"]
        assert again["info"]["settings.thresholds"] == [0.2, 0.3]

        def keys(found):
            return sorted(json.dumps({**a, "id": 0}, sort_keys=True) for a in found["annotations"])

        assert keys(again) == keys(content)
        assert [a["id"] for a in again["annotations"]] == list(range(1, len(keys(again)) + 1))

    def test_foreign_file(self, tmp_path, warnings):
        path = write_json(tmp_path / "instances.json", foreign())
        summary = coco_to_store(path, tmp_path / "boxes")
        content = json.loads((tmp_path / "boxes" / "annotations.json").read_text())
        assert content["categories"] == CATEGORIES
        assert [image["id"] for image in content["images"]] == [70, 60, 50]
        assert content["annotations"] == [
            {**annotation(1, 70, [1.24, 2, 3, 4], threshold=0.5), "area": 12.0},
            {**annotation(2, 70, [0.1, 0.2, 50.2, 60.25], 4), "area": 3024.55},
            annotation(3, 50, [10, 10, 5.5, 5], 4, threshold=0.25),
        ]
        described = json.loads((tmp_path / "boxes" / "manifest.json").read_text())
        assert described["settings"] == {"thresholds": [0.25, 0.5]}
        assert described["image_list"]["source_sha256"] == (
            hashlib.sha256(path.read_bytes()).hexdigest()
        )
        assert summary["without_boxes"] == {"the COCO file has none": 1}
        assert warnings[0].endswith(
            "boxes without width, height or area, rounded to hundredths of a pixel, are dropped: 2"
        )
        assert warnings[1].endswith(
            "left out: license (image): 1, licenses (file): 1, score (annotation): 1, "
            "segmentation (annotation): 1"
        )

    def test_unknown_counts_are_not_zero(self, store, tmp_path):
        summary = coco_to_store(store / "annotations.json", tmp_path / "2")
        assert summary["top1"] is None
        original = json.loads((store / "summary.json").read_text())
        assert original["top1"] == 1.0
        assert summary["merged"] == original["merged"]
        assert summary["images"] == original["images"] == 199
        assert summary["failed"] == []

    def test_file_without_thresholds(self, tmp_path):
        content = foreign()
        for item in content["annotations"]:
            item.pop("threshold", None)
        path = write_json(tmp_path / "instances.json", content)
        summary = coco_to_store(path, tmp_path / "boxes")
        assert summary["top1"] is None
        assert "threshold" not in (tmp_path / "boxes" / "annotations.json").read_text()[200:]


class TestWhatIsThere:
    def test_json_is_not_overwritten(self, store, tmp_path):
        path = tmp_path / "boxes.json"
        store_to_coco(store, path)
        store_to_coco(store, path)
        path.write_text("{}")
        with pytest.raises(FileExistsError, match="is there with other content"):
            store_to_coco(store, path)
        assert path.read_text() == "{}"

    def test_finished_store_is_kept(self, store, tmp_path, warnings):
        source, out = store / "annotations.json", tmp_path / "2"
        first = coco_to_store(source, out)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        assert coco_to_store(source, out) == first
        assert warnings[-1] == f"{out} is finished already: nothing to do"
        assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}

    def test_goes_on_with_what_is_missing(self, store, tmp_path, monkeypatch):
        source, whole, out = store / "annotations.json", tmp_path / "whole", tmp_path / "out"
        coco_to_store(source, whole)
        with interrupted_writing(2):
            coco_to_store(source, out)
        assert not (out / "annotations.json").exists()
        write, written = StoreWriter.write, []
        monkeypatch.setattr(
            StoreWriter, "write", lambda w, s, r: (written.append(s), write(w, s, r))
        )
        coco_to_store(source, out)
        assert written == [2, 3]
        files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
        assert len(files) == 7
        for file in files:
            assert (out / file).read_bytes() == (whole / file).read_bytes()

    def test_another_source_is_refused(self, store, tmp_path):
        coco_to_store(store / "annotations.json", tmp_path / "2")
        path = write_json(tmp_path / "instances.json", foreign())
        with pytest.raises(ValueError, match=r"holds another run.*source_sha256"):
            coco_to_store(path, tmp_path / "2")

    def test_the_run_itself_is_refused(self, store):
        with pytest.raises(ValueError, match="holds another run"):
            coco_to_store(store / "annotations.json", store)


def damaged(**changes):
    """A foreign file with one thing changed: ``images_0_width=None`` removes it."""
    content = foreign()
    for place, value in changes.items():
        kind, number, *key = place.split("_", 2)
        item = content[kind][int(number)]
        if value is None:
            del item[key[0]]
        else:
            item[key[0]] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged(annotations_1_iscrowd=1), r"annotation 6: it is to be ignored.*CheckedCocoDatas"),
        (damaged(annotations_1_ignore=1), r"annotation 6: it is to be ignored.*CheckedCocoDatas"),
        (
            damaged(annotations_0_category_id=5),
            r"annotation 5: unknown category_id 5, as 1 of 5 annotations have; expected the id of",
        ),
        (damaged(annotations_0_category_id=None), r"annotation 5: unknown category_id None"),
        (damaged(annotations_0_image_id=71), r"annotation 5: unknown image_id 71"),
        (
            damaged(annotations_0_bbox=[1, 2, 3]),
            r"annotation 5: bbox .*; expected 4 numbers, x, y, width",
        ),
        (
            damaged(annotations_0_bbox=[1, 2, 3, "4"]),
            r"annotation 5: bbox .*; expected 4 numbers, x, y, width",
        ),
        (damaged(annotations_0_bbox=[1, 2, 3, 2e5]), r"annotation 5: expected bbox.*131072 px"),
        (
            damaged(annotations_0_bbox=[1, 2, float("nan"), 4]),
            r"annotation 5: bbox .*; expected 4 numbers, x, y",
        ),
        (damaged(annotations_0_bbox=None), r"annotation 5: bbox .*; expected 4 numbers, x, y"),
        (damaged(annotations_0_threshold="high"), r"annotation 5: threshold 'high' is not one of"),
        (damaged(images_1_width=None), r"image 60: width None; expected whole pixels, at least 1"),
        (damaged(images_1_height=0), r"image 60: height 0; expected whole pixels"),
        (damaged(images_1_height=80.5), r"image 60: height 80.5; expected whole pixels"),
        (damaged(images_1_id="x"), r"image x: expected id: a whole number; found 'x'"),
        (damaged(images_1_file_name=None), r"image 60: file_name None; expected a path"),
        (
            damaged(images_1_id=70),
            r"two entries of image have the same id 70; expected a different one each",
        ),
        (damaged(categories_1_id=9), r"two entries of category have the same id 9"),
        (damaged(categories_1_name=None), r"category 4: name None; expected a name"),
        ({**foreign(), "images": [], "annotations": []}, r"has no images; expected some"),
        ({**foreign(), "annotations": [[]]}, r"annotations\[0\]: no object; expected an object"),
        ({**foreign(), "annotations": {}}, r" ?has no list of annotations; expected a COCO"),
        ([1], r" ?has no list of images, annotations, categories"),
    ],
)
def test_what_a_store_cannot_hold(tmp_path, content, message):
    path = write_json(tmp_path / "instances.json", content)
    with pytest.raises(ValueError, match=rf"instances\.json[: ]*{message}"):
        coco_to_store(path, tmp_path / "boxes")
    assert not (tmp_path / "boxes").exists()


def test_scores_are_no_thresholds(tmp_path):
    content = foreign()
    content["annotations"] = [
        annotation(i, 70, [1, 2, 3, 4], threshold=i / 999) for i in range(255)
    ]
    path = write_json(tmp_path / "instances.json", content)
    with pytest.raises(ValueError, match="255 values of threshold in the annotations"):
        coco_to_store(path, tmp_path / "boxes")


class TestStreamed:
    """Files that were made of a store are read line by line."""

    @pytest.fixture
    def lines(self, store):
        return (store / "annotations.json").read_text().splitlines(keepends=True)

    def refused(self, tmp_path, lines, message):
        path = tmp_path / "edited.json"
        path.write_text("".join(lines))
        with pytest.raises(ValueError, match=message):
            coco_to_store(path, tmp_path / "boxes")
        assert not (tmp_path / "boxes" / "annotations.json").exists()

    def test_nothing_is_read_as_a_whole(self, store, tmp_path, monkeypatch):
        monkeypatch.setattr(coco_source, "read_coco_file", None)
        coco_to_store(store / "annotations.json", tmp_path / "2")

    def test_order_of_annotations(self, tmp_path, lines):
        first = lines.index('"annotations": [\n') + 1
        lines[first], lines[first + 1] = lines[first + 1], lines[first]
        self.refused(tmp_path, lines, "annotation 2?1?: it is not in the order of the images")

    def test_unknown_image(self, tmp_path, lines):
        lines[-2] = lines[-2].replace('"image_id": ', '"image_id": 7777')
        self.refused(tmp_path, lines, "unknown image_id 7777")

    def test_error_stays_an_error(self, tmp_path, lines):
        """What is found at the end of a file is found again by the next call."""
        lines[-2] = lines[-2].replace('"image_id": ', '"image_id": 7777')
        for _ in range(2):
            self.refused(tmp_path, lines, "unknown image_id 7777")

    def test_crowd(self, tmp_path, lines):
        lines[-2] = lines[-2].replace('"iscrowd": 0', '"iscrowd": 1')
        self.refused(tmp_path, lines, "it is to be ignored in training")

    def test_same_id_twice(self, tmp_path, lines):
        lines[4] = lines[3]
        self.refused(tmp_path, lines, "2 images have id 600")

    def test_cut_off(self, tmp_path, lines):
        self.refused(tmp_path, lines[:-3], r"edited\.json, line \d+: expected 'a line that ends'")


def test_no_json(tmp_path):
    for content in (b"no json", b"\xff\xfe\x00", b'{"info": 1,\n'):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.json is no json in UTF-8"):
            coco_to_store(tmp_path / "x.json", tmp_path / "out")


def test_kind_of_out(store, tmp_path):
    with pytest.raises(ValueError, match=r"is a store, to be written as a file: name it ….json"):
        convert_annotations(store, tmp_path / "out")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        convert_annotations(store, tmp_path)
    with pytest.raises(ValueError, match=r"is a COCO file, to be made a store: name a folder"):
        convert_annotations(store / "annotations.json", tmp_path / "out.json")
    with pytest.raises(FileNotFoundError):
        convert_annotations(tmp_path / "nowhere.json", tmp_path / "out")


def test_tool(store, tmp_path, run_here):
    done = run_here("convert_annotations", store / "annotations.json", tmp_path / "2")
    assert done.returncode == 0, done.stderr
    done = run_here("convert_annotations", tmp_path / "2" / "manifest.json", tmp_path / "2.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "2.json").read_bytes() == (store / "annotations.json").read_bytes()
    done = run_here("convert_annotations", tmp_path / "2", tmp_path / "2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_run_of_a_classifier_of_the_zoo_survives_both_ways(tmp_path):
    root = make_class_folders(tmp_path / "images", 3)
    zoo_run(root, tmp_path / "out")
    convert_annotations(tmp_path / "out" / "annotations.json", tmp_path / "store")
    convert_annotations(tmp_path / "store", tmp_path / "again.json")
    first, again = (
        json.loads((tmp_path / name).read_text()) for name in ("out/annotations.json", "again.json")
    )
    assert first["images"] == again["images"]
    assert first["annotations"] == again["annotations"]
