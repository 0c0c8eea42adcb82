"""The page on the boxes of a run: what it says is what the store holds."""

import base64
import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmpretrain.datasets import CustomDataset

from dap.evaluation.evaluate import evaluate_boxes
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes import PseudoBoxSettings, PseudoBoxStore, generate_pseudo_boxes
from dap.pseudo_boxes.stored_maps import StoredMaps
from dap.store.convert import coco_to_store
from dap.testing import make_class_folders, write_image
from dap.visualization.gallery import COLOURS_BGR
from dap.visualization.inspection import inspect_boxes
from tests.support.planted import planted_classifier
from tests.support.stores import write_store

ROOT = Path(__file__).parents[2]
TAUS = (0.3, 0.5)


class Page(HTMLParser):
    """Texts of table rows, sources of images by their alternative text, and all text."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.images, self.text, self.open = [], {}, "", []
        self.ids, self.links = [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, self.open
        assert len(set(self.ids)) == len(self.ids)
        assert set(self.links) <= {f"#{name}" for name in self.ids}

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in ("script", "iframe")
        for value in (given.get("src", ""), given.get("href", "")):
            assert value.startswith(("data:", "#")) or not value, value  # nothing from elsewhere
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        if tag == "img":
            self.images.setdefault(given["alt"], []).append(given["src"])
        elif tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def picture(self, name, number=0):
        content = base64.b64decode(self.images[name][number].split(",")[1])
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Six images of three colours, and one that is none."""
    root = make_class_folders(tmp_path_factory.mktemp("images"), 2)
    (root / "red" / "broken <b>.jpg").write_bytes(b"no image")
    return root


def run(root, out, **settings):
    settings = PseudoBoxSettings(
        **{"short_sides": (112,), "thresholds": TAUS, "rule": "paper", **settings}
    )
    model = planted_classifier()
    generate_pseudo_boxes(model, CustomDataset(data_root=str(root)), out, settings)
    store = PseudoBoxStore(out)
    return store, StoredMaps(store, model)


def test_page_says_what_the_store_holds(photographs, tmp_path):
    store, maps = run(photographs, tmp_path / "store")
    page = Page(inspect_boxes(store, tmp_path / "page", maps))
    summary = json.loads((tmp_path / "store" / "summary.json").read_text())
    facts = dict(row for row in page.rows if len(row) == 2)
    assert facts["images"] == str(summary["images"]) == "6"
    assert facts["boxes"] == str(sum(len(shard.bboxes) for shard in store.shards))
    assert facts["images that failed"] == "1"
    assert facts["rule"] == "paper"
    boxes = []
    for taus in ((TAUS[0],), (TAUS[1],), TAUS):
        run(photographs, tmp_path / f"alone{taus}", thresholds=taus)
        alone = json.loads((tmp_path / f"alone{taus}" / "summary.json").read_text())
        boxes.append(f"{alone['merged']['boxes_per_image']:.3f}")
    assert ["boxes per image: this run", *boxes] in page.rows
    assert ["boxes per image: paper, ImageNet, R-50", "1.046", "1.161", "3.211"] in page.rows
    assert facts["failed: ValueError: not an image that cv… can decode"] == "1"
    assert "red/broken <b>.jpg" in facts  # escaped in the page, as it is here
    classes = {row[1]: row[3:] for row in page.rows if len(row) == 5 and row[0].isdigit()}
    labels = np.concatenate([shard.labels for shard in store.shards])
    assert {name: int(own[0]) for name, own in classes.items()} == {
        category["name"]: int((labels == label).sum())
        for label, category in enumerate(store.categories)
    }
    assert {name: own[1] for name, own in classes.items()} == dict.fromkeys(classes, "2")
    with open(tmp_path / "page" / "classes.csv", newline="") as file:
        assert len(list(csv.reader(file))) == 4
    names = sorted(path.name for path in (tmp_path / "page").glob("*.png"))
    assert names == [
        *(f"gallery_{n}.png" for n in ("classes", "fewest", "largest", "most", "random")),
        "gallery_smallest.png", *(f"histogram{i}.png" for i in range(4)),
        "nms.png", "thresholds.png",
    ]  # fmt: skip


def test_rows_of_table_a2_are_those_of_runs_with_that_nms(photographs, tmp_path):
    """From maps computed again, and from a store that kept every box: the same."""
    pages = []
    for name, nms_iou in (("merged", 0.8), ("all", None)):
        store, maps = run(photographs, tmp_path / name, nms_iou=nms_iou)
        maps = maps if nms_iou else None
        pages.append(Page(inspect_boxes(store, tmp_path / name / "inspection", maps, count=6)))
    a2 = [[row for row in page.rows if len(row) == 7] for page in pages]
    assert a2[0] == a2[1]
    assert a2[0][0] == ["", *(f"NMS {iou}" for iou in (0.5, 0.6, 0.7, 0.8, 0.9, "none"))]
    expected = []
    for nms_iou in (0.5, 0.8, None):
        run(photographs, tmp_path / f"direct{nms_iou}", nms_iou=nms_iou)
        summary = json.loads((tmp_path / f"direct{nms_iou}" / "summary.json").read_text())
        expected.append(f"{summary['merged']['boxes_per_image']:.3f}")
    assert [a2[0][1][i] for i in (1, 4, 6)] == expected


def test_maps_of_all_pictures_are_computed_at_once(photographs, tmp_path, monkeypatch):
    """Each image once, though it is in several galleries; those of the worst classes too."""
    store, maps = run(photographs, tmp_path / "store")
    asked, compute = [], StoredMaps.of_images

    def of_images(self, items, image_root=None):
        asked.append([name for name, _ in items])
        return compute(self, items, image_root)

    monkeypatch.setattr(StoredMaps, "of_images", of_images)
    worst = {"name": "red", "corloc": 0.0, "missed_images": [5], "found_images": []}
    monkeypatch.setattr("dap.visualization.quality.quality_table", lambda _: "")
    quality = {"worst_classes": [worst]}
    inspect_boxes(store, tmp_path / "page", maps, count=1, quality=quality)
    (first, *others) = [names for names in asked if names]
    assert not others
    assert len(set(first)) == len(first) > 1
    assert store.shards[0].file_name(5) in first


def written(folder, records, names=("n0", "n1")):
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    settings = {"thresholds": [0.2, 0.5]}
    return PseudoBoxStore(write_store(folder, records, categories, 64, settings, folder / "images"))


BOXED = {
    "file_name": "a.png", "height": 118, "width": 236,
    "boxes": [[20, 10, 140, 70, 0, 0], [50, 30, 90, 50, 0, 1]],
}  # fmt: skip


def test_boxes_of_the_gallery_are_where_the_store_says(tmp_path):
    """A tile of 240 px shows an image of 236 px at its own size; JPEG blurs colours."""
    store = written(tmp_path / "store", [BOXED])
    write_image(tmp_path / "store/images/a.png", np.full((118, 236, 3), 110, np.uint8))
    out = inspect_boxes(store, tmp_path / "page")
    exact = cv2.imread(str(tmp_path / "page" / "gallery_random.png"))
    blurred = Page(out).picture("a.png")
    palette = np.array([*COLOURS_BGR, (110, 110, 110)])

    def nearest(tile, x, y):
        return int(np.abs(palette - tile[y, x].astype(int)).max(axis=1).argmin())

    for rank, (x1, y1, x2, y2, *_) in enumerate(BOXED["boxes"]):
        for x, y in ((x1, y1), (x2 - 1, y1), (x1, y2 - 1), (x2 - 1, y2 - 1)):
            assert exact[y, x].tolist() == list(COLOURS_BGR[rank])
            assert nearest(blurred, x, y) == rank
        assert nearest(blurred, x2 + 4, y2 + 4) == nearest(blurred, x1 - 4, y1 - 4) == 5


def test_store_of_one_image_without_maps(tmp_path):
    store = written(tmp_path / "store", [BOXED])
    write_image(tmp_path / "store/images/a.png", np.full((118, 236, 3), 110, np.uint8))
    page = Page(inspect_boxes(store, tmp_path / "page"))
    assert len(page.images["a.png"]) == 6  # every gallery but that of images without boxes
    assert "There is no such image." in page.text
    assert "Boxes only" in page.text
    assert "generate the boxes without NMS" in page.text
    assert not (tmp_path / "page" / "nms.png").exists()


def test_store_without_any_box(tmp_path):
    nothing = {"height": 20, "width": 30, "boxes": [], "reason": "its map is constant"}
    records = [{"file_name": f"{i}.png", **nothing} for i in range(3)]
    page = Page(inspect_boxes(written(tmp_path / "store", records), tmp_path / "page"))
    assert "100.0% have no box" in page.text
    assert ["its map is constant", "3"] in page.rows
    assert len(page.images["0.png"]) == 2  # random, and without a box


def test_images_that_have_moved_are_grey_and_named(tmp_path):
    store = written(tmp_path / "store", [BOXED])
    page = Page(inspect_boxes(store, tmp_path / "page"))
    assert "1 of the images cannot be read, such as a.png" in page.text
    tile = page.picture("a.png")
    assert np.abs(tile[110, 30].astype(int) - 180).max() < 12
    assert np.abs(tile[10, 80].astype(int) - COLOURS_BGR[0]).max() < 60
    write_image(tmp_path / "moved/a.png", np.full((118, 236, 3), 110, np.uint8))
    page = Page(inspect_boxes(store, tmp_path / "page", image_root=tmp_path / "moved"))
    assert "cannot be read" not in page.text


def test_image_of_another_size_is_not_drawn_under_the_boxes(tmp_path):
    store = written(tmp_path / "store", [BOXED])
    write_image(tmp_path / "store/images/a.png", np.full((59, 118, 3), 110, np.uint8))
    page = Page(inspect_boxes(store, tmp_path / "page"))
    assert "it has 118 x 59 pixels, the boxes are of an image of 236 x 118" in page.text


def test_store_made_of_a_coco_file(tmp_path):
    """Without settings and thresholds: grey boxes, no tables of NMS, no verdict on their number."""
    boxes = [[5 * i, 5, 4, 30] for i in range(7)]
    (tmp_path / "a.json").write_text(json.dumps({
        "images": [{"id": 5, "file_name": "\u00fc \n<i>.png", "width": 236, "height": 118}],
        "categories": [{"id": 9, "name": "n0"}],
        "annotations": [{"id": i, "image_id": 5, "category_id": 9, "bbox": box, "area": 120,
                         "iscrowd": 0} for i, box in enumerate(boxes)],
    }))  # fmt: skip
    coco_to_store(tmp_path / "a.json", tmp_path / "store")
    page = Page(inspect_boxes(PseudoBoxStore(tmp_path / "store"), tmp_path / "page"))
    assert "NMS is off" not in page.text
    assert "threshold not known" in page.text
    assert "Give config and checkpoint" in page.text
    assert len(page.images["\u00fc \n<i>.png"]) == 6


def test_many_classes(tmp_path):
    """Of 21,841 classes the page has 200, the file all."""
    names = [f"n{i:08d}" for i in range(21_841)]
    records = [
        {"file_name": f"{i}.png", "height": 9, "width": 9, "boxes": [[0, 0, 5, 5, 100 * i, 0]]}
        for i in range(150)
    ]
    out = inspect_boxes(written(tmp_path / "store", records, names), tmp_path / "page", count=8)
    page = Page(out)
    assert "the 100 with the most boxes and the 100 with the fewest" in page.text
    assert sum(len(row) == 5 and row[0].isdigit() for row in page.rows) == 200
    with open(tmp_path / "page" / "classes.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 21_842
    assert rows[101] == ["100", "n00000100", "n00000100", "1", "1"]
    assert out.stat().st_size < 2e6


def test_truth_is_drawn_and_judges(tmp_path):
    """Of two true boxes the larger pseudo box meets one: IoU 1; none meets the other."""
    store = written(tmp_path / "store", [BOXED])
    write_image(tmp_path / "store/images/a.png", np.full((118, 236, 3), 110, np.uint8))
    coco = {
        "images": [{"id": 5, "file_name": "a.png", "width": 236, "height": 118}],
        "categories": [{"id": 9, "name": "n0"}],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": 9, "bbox": box, "area": box[2] * box[3],
             "iscrowd": 0} for i, box in enumerate(([150, 80, 50, 30], [20, 10, 120, 60]))
        ],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(coco))
    truth = read_ground_truth(tmp_path / "truth.json")
    quality = evaluate_boxes(store, truth)
    page = Page(inspect_boxes(store, tmp_path / "page", truth=truth, quality=quality))
    tile = cv2.imread(str(tmp_path / "page" / "gallery_random.png"))
    assert tile[80, 170].tolist() == [255, 255, 255]
    assert re.search(r"GT-known localisation, IoU .5 +100.0", page.text)
    assert re.search(r"recall, IoU .5 +50.0", page.text)
    assert page.images["n0, CorLoc 1.00: found, a.png"]
    assert (tmp_path / "page" / "worst_classes.png").exists()


def test_maps_of_another_classifier_are_refused(photographs, tmp_path):
    store, _ = run(photographs, tmp_path / "store")
    other = planted_classifier()
    other.head.fc.weight.data += 1
    with pytest.raises(ValueError, match="was made with other weights"):
        StoredMaps(store, other)


def test_nothing_to_show_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="count: expected at least 1"):
        inspect_boxes(written(tmp_path / "store", [BOXED]), tmp_path / "page", count=0)


def test_tool(photographs, tmp_path, run_here):
    run(photographs, tmp_path / "store")
    done = run_here("inspect_boxes", tmp_path / "store", "--count", 3)
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "store" / "inspection" / "index.html")
    assert len(page.images) >= 3
    assert "cannot be read" not in page.text


def test_tool_says_what_is_wrong(tmp_path, run_here):
    done = run_here("inspect_boxes", tmp_path)
    assert done.returncode == 1
    assert "holds no pseudo boxes" in done.stderr


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install "
                    "chromium)")  # fmt: skip
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_in_a_browser(photographs, tmp_path, width):
    """No error in the console, and no wider than the window: tables scroll by themselves."""
    store, maps = run(photographs, tmp_path / "store")
    page = inspect_boxes(store, tmp_path / "page", maps)
    probe = tmp_path / "page" / "probe.html"
    script = "<script>document.title=`${document.documentElement.scrollWidth} ${innerWidth} "
    script += "${[...document.images].filter(i=>!i.complete||!i.naturalWidth).length}`</script>"
    text = page.read_text().replace(' loading="lazy"', "")
    probe.write_text(text.replace("</body>", f"{script}</body>"))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
         "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    scroll, window, broken = map(int, re.search("<title>(.*?)</title>", done.stdout)[1].split())
    assert scroll <= window
    assert broken == 0
