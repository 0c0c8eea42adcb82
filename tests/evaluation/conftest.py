"""A store of six images, and ground truth of most of them."""

import json

import pytest

from tests.support.boxes import LEFT, RIGHT, WHOLE
from tests.support.stores import image_record, store_of


@pytest.fixture
def store(tmp_path):
    """Three shards of two."""
    return store_of(
        tmp_path / "boxes",
        [
            image_record("a/1.JPEG", (WHOLE, 0, 0), (LEFT, 0, 1)),
            image_record("a/2.JPEG", (RIGHT, 0, 1)),
            image_record("b/3.JPEG"),
            {"file_name": "b/broken.JPEG", "reason": "it is no image"},
            image_record("c/5.JPEG", (LEFT, 2, 0)),
            image_record("c/6.JPEG", (LEFT, 2, 0)),
        ],
    )


@pytest.fixture
def truth(tmp_path):
    """Objects in all six images but the last, and in two that the store lacks.

    One is of a category that the store lacks, and one is to be ignored.
    """
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
