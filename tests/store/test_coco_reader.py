"""Reading a COCO file as we write it, and refusing every other layout by its line."""

import json

import pytest

from dap.files import write_coco
from dap.store import coco_reader
from dap.store.coco_reader import CocoReader

CATEGORIES = [{"id": 1, "name": "blue"}]
IMAGES = [{"id": i, "file_name": f"wölkchen {i}.png"} for i in (1, 2)]
BOXES = [{"id": i, "image_id": 2, "bbox": [0, 0.5, 3, 4]} for i in (1, 2, 3)]


def write(path, images=IMAGES, boxes=BOXES):
    write_coco(path, {"x": 1}, CATEGORIES, map(json.dumps, images), map(json.dumps, boxes))
    return path


def read(path):
    with open(path, encoding="utf-8") as file:
        reader = CocoReader(file)
        return reader.info, reader.categories, list(reader.images()), list(reader.annotations())


@pytest.mark.parametrize("boxes", [BOXES, []])
@pytest.mark.parametrize("images", [IMAGES, []])
def test_what_is_written_is_read(tmp_path, images, boxes):
    path = write(tmp_path / "x.json", images, boxes)
    assert read(path) == ({"x": 1}, CATEGORIES, images, boxes)


def test_last_line_without_its_end(tmp_path):
    path = write(tmp_path / "x.json")
    path.write_bytes(path.read_bytes().rstrip())
    assert read(path)[3] == BOXES


def test_name_that_is_not_utf8(tmp_path):
    """``os.fsdecode`` makes a lone surrogate of such a byte."""
    images = [{"id": 1, "file_name": "caf\udce9.jpg"}]
    assert read(write(tmp_path / "x.json", images))[2] == images


DAMAGES = {
    "one line": (lambda lines: [json.dumps(json.loads("".join(lines)))], "line 1: expected"),
    "no text": (lambda lines: ["\udcff\udcfe", *lines], "line 1: expected 'text'"),
    "empty": (lambda lines: [], "line 1: expected"),
    "cut in an image": (lambda lines: [*lines[:4], lines[4][:20]], "line 5: expected"),
    "cut between boxes": (lambda lines: lines[:-3], "expected 'a line that ends'"),
    "twice the file": (lambda lines: [*lines, *lines], "line 12: expected 'the end of the file'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_layouts_are_refused(tmp_path, damage):
    change, message = DAMAGES[damage]
    path = write(tmp_path / "x.json")
    changed = "\n".join(change(path.read_text().splitlines()))
    path.write_bytes((changed + "\n" * bool(changed)).encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message) as refused:
        read(path)
    assert str(path) in str(refused.value)


def test_bytes_after_the_end_are_refused(tmp_path):
    """An incomplete UTF-8 sequence, which is detected only at the end of the file."""
    path = write(tmp_path / "x.json")
    path.write_bytes(path.read_bytes() + b"\xe9")
    with pytest.raises(ValueError, match=r"line 12: expected 'the end of the file', .*no text'"):
        read(path)


def test_file_without_line_ends_is_not_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_reader, "LINE_LIMIT", 1000)
    (tmp_path / "x.json").write_text('{"info": ' + " " * 100_000)
    with open(tmp_path / "x.json") as file, pytest.raises(ValueError, match="a line that ends"):
        CocoReader(file)
