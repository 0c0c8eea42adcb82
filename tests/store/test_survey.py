"""Counts over all boxes of a store, and the verdict on them, by hand."""

import numpy as np
import pytest

from dap.pseudo_boxes import PseudoBoxStore
from dap.runs.verdict import verdict
from dap.store.survey import survey
from dap.store.writer import StoreWriter
from dap.testing import make_class_folders
from tests.support.zoo import zoo_run

CATEGORIES = [{"id": i + 1, "name": f"n{i}"} for i in range(3)]
RECORDS = [
    # 100 x 100: a box on all of it (side 1), and 5 x 10 px, .5 % of it (side .0707).
    {"height": 100, "width": 100, "boxes": [[0, 0, 100, 100, 2, 0], [0, 0, 5, 10, 1, 1]]},
    # 100 high, 200 wide: a box on .4096 of it (side .64), twice as wide as high.
    {"height": 100, "width": 200, "boxes": [[0, 0, 128, 64, 2, 0]]},
    {"height": 10, "width": 10, "boxes": [], "reason": "its map is constant"},
    {"reason": "OSError: gone"},
    # 50 x 50: two boxes on .092 of it (side .303).
    {"height": 50, "width": 50, "boxes": [[0, 0, 5, 46, 2, 0], [5, 0, 10, 46, 2, 0]]},
]


@pytest.fixture(params=[1, 2, 8])
def store(request, tmp_path):
    return write(tmp_path / "store", RECORDS, request.param)


def write(folder, records, shard_size=4, thresholds=(0.2, 0.5), top1=None):
    described = {
        "settings": {"thresholds": list(thresholds)}, "classifier": {}, "categories": CATEGORIES,
        "image_list": {"count": len(records), "root": ""}, "shard_size": shard_size,
    }  # fmt: skip
    writer = StoreWriter(folder, described)
    for shard in writer.begin():
        rows = [{"file_name": f"{i}.jpg", **records[i]} for i in writer.indices(shard)]
        if top1 is not None:
            rows = [{**row, "top1": top1} for row in rows]
        writer.write(shard, rows)
    writer.finish()
    return PseudoBoxStore(folder)


def test_counts_by_hand_whatever_the_shards(store):
    seen = survey(store)
    assert seen.counts.tolist() == [2, 1, 0, 0, 2]
    assert seen.usable.tolist() == [True, True, True, False, True]
    assert (seen.images, seen.boxes) == (4, 5)
    np.testing.assert_allclose(seen.largest, [1, 0.4096, np.nan, np.nan, 0.092], rtol=1e-4)
    np.testing.assert_allclose(seen.smallest, [0.005, 0.4096, np.nan, np.nan, 0.092], rtol=1e-4)
    assert seen.labels.tolist() == [2, 2, -1, -1, 2]
    assert seen.class_boxes.tolist() == [0, 1, 4]
    assert seen.class_images.tolist() == [0, 1, 3]
    sides = np.zeros(20, int)
    sides[[1, 12, 19]] = 1  # .0707, .64, 1
    sides[6] = 2  # .303
    assert seen.sides.tolist() == sides.tolist()
    aspects = np.zeros(24, int)
    # log2 of 1, 2, .5 and 5 / 46, which is beyond -3: bins of .25 from -3 on.
    aspects[[12, 16, 8]] = 1
    aspects[0] = 2
    assert seen.aspects.tolist() == aspects.tolist()
    assert seen.share_empty == 0.25
    assert seen.share_nearly_all == 0.25
    assert seen.share_tiny == 0.25


def summary(**changes):
    return {
        "top1": 0.8, "merged": {"boxes_per_image": 3.2},
        "settings": {"thresholds": [0.2, 0.3, 0.4, 0.5]}, **changes,
    }  # fmt: skip


def many(boxes, count=100, others=()):
    """Images of 100 x 100 px with these boxes."""
    record = {"height": 100, "width": 100, "boxes": [[*box, 0, 0] for box in boxes]}
    if not boxes:
        record["reason"] = "its map is constant"
    return [record] * count + list(others)


USEFUL = many([[10, 10, 60, 60]])


def judged(tmp_path, records, **changes):
    return verdict(survey(write(tmp_path / "store", records, 64)), summary(**changes))


def test_useful_run_is_not_warned_of(tmp_path):
    found = judged(tmp_path, USEFUL)
    assert found.warnings == []
    assert found.text == (
        "3.20 boxes per image; a box covers more than 95% of the image in 0.0% of the images, one "
        "less than 1% in 0.0%; 0.0% have no box; the classifier's first guess is right on 80.0%"
    )


@pytest.mark.parametrize(("records", "changes", "words"), [
    (USEFUL, {"top1": 0.001}, "right on 0.1% of the images: look whether normalisation"),
    (many([[0, 0, 100, 98]]), {}, "100.0% of the images have a box on more than 95% of the image"),
    (many([[0, 0, 9, 9]]), {}, "100.0% of the images have a box on less than 1% of the image"),
    (USEFUL + many([], 10), {}, "9.1% of the images have no box"),
    (USEFUL, {"merged": {"boxes_per_image": 12.5}}, "12.5 boxes per image at 4 threshold"),
])  # fmt: skip
def test_numbers_unlike_any_useful_run_are_warned_of(tmp_path, records, changes, words):
    found = judged(tmp_path, records, **changes)
    assert len(found.warnings) == 1
    assert words in found.warnings[0]


def test_run_without_any_usable_number(tmp_path):
    found = judged(tmp_path, many([], 3), top1=None, merged={"boxes_per_image": None})
    assert found.text.startswith("no boxes per image")
    assert "right" not in found.text


def test_run_of_a_classifier_of_the_zoo(tmp_path):
    root = make_class_folders(tmp_path / "images", 3)
    summary = zoo_run(root, tmp_path / "out")
    seen = survey(PseudoBoxStore(tmp_path / "out"))
    assert (seen.images, seen.boxes) == (9, summary["merged"]["boxes"])
    assert verdict(seen, summary).text.startswith(f"{seen.boxes / 9:.2f} boxes per image")
