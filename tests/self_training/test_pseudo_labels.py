"""Which detections become labels, worked out by hand."""

import copy
import hashlib
import json
import math
import re

import pytest

from dap.self_training import choose_labels, write_pseudo_labels

IMAGES = [
    {"id": 5, "file_name": "a.jpg", "width": 100, "height": 60},
    {"id": 3, "file_name": "b.jpg", "width": 40, "height": 80},
    {"id": 9, "file_name": "c.jpg", "width": 50, "height": 50},
    {"id": 4, "file_name": "d.jpg", "width": 50, "height": 50},
]
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}]


def found(image_id, score, bbox=(1, 2, 10, 20), category_id=7):
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(bbox),
        "score": score,
    }


def kept(predictions, **settings):
    labels, _ = choose_labels(IMAGES, predictions, **settings)
    return [(label["image_id"], label["score"]) for label in labels]


def test_the_rule():
    predictions = [
        found(3, 0.2),  # below, and .3 is better
        found(5, 0.9, category_id=2),
        found(3, 0.3),  # below, but the best of image 3
        found(5, 0.61),
        found(5, 0.59),  # below, and not the best
        found(9, 0.01),  # alone in its image
    ]
    labels, counts = choose_labels(IMAGES, predictions)
    assert labels == [
        {"id": 1, "image_id": 5, "category_id": 2, "score": 0.9}
        | {"bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": 7, "score": 0.61}
        | {"bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0},
        {"id": 3, "image_id": 3, "category_id": 7, "score": 0.3}
        | {"bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0},
        {"id": 4, "image_id": 9, "category_id": 7, "score": 0.01}
        | {"bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 0},
    ]
    assert counts == {
        "kept_by_score": 2,
        "kept_as_best": 2,
        "dropped_below_one_pixel": 0,
        "images_without_labels": 1,
    }


def test_threshold_itself_is_enough():
    below = math.nextafter(0.6, 0)
    assert kept([found(5, 0.9), found(5, 0.6), found(5, below)]) == [(5, 0.9), (5, 0.6)]


def test_all_that_tie_for_the_best_stay():
    assert kept([found(5, 0.4), found(5, 0.3), found(5, 0.4)]) == [(5, 0.4), (5, 0.4)]


def test_another_threshold():
    predictions = [found(5, 0.9), found(5, 0.6), found(5, 0.2)]
    assert kept(predictions, score=0.95) == [(5, 0.9)]
    assert kept(predictions, score=0.1) == [(5, 0.9), (5, 0.6), (5, 0.2)]


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [
        ((-5, -7, 20, 30), [0, 0, 15, 23]),
        ((30, 70, 20, 30), [30, 70, 10, 10]),
        ((-1, -1, 99, 99), [0, 0, 40, 80]),
        ((0, 0, 40, 80), [0, 0, 40, 80]),
    ],
)
def test_boxes_are_clipped_to_their_image(bbox, clipped):
    (label,), _ = choose_labels(IMAGES, [found(3, 0.9, bbox)])
    assert label["bbox"] == clipped
    assert label["area"] == clipped[2] * clipped[3]


def test_box_below_one_pixel_is_not_the_best():
    predictions = [
        found(3, 0.9, (40, 10, 20, 20)),  # right of the image, which is 40 px wide
        found(3, 0.8, (10, -20, 20, 20)),  # above it
        found(3, 0.7, (10, 10, 0.9, 20)),
        found(3, 0.7, (39.1, 10, 20, 20)),  # 0.9 px of it are in the image
        found(5, 0.2, (99, 10, 20, 1)),  # a pixel of it is in the image
        found(3, 0.5),
        found(3, 0.4),
        found(9, 0.9, (10, 10, 20, 0)),
    ]
    labels, counts = choose_labels(IMAGES, predictions)
    assert [(label["image_id"], label["score"]) for label in labels] == [(5, 0.2), (3, 0.5)]
    assert counts["dropped_below_one_pixel"] == 5
    assert counts["images_without_labels"] == 2


def test_input_is_left_as_it_was():
    predictions = [found(3, 0.9, (-5, -7, 20, 30))]
    before = copy.deepcopy((IMAGES, predictions))
    choose_labels(IMAGES, predictions)
    assert (IMAGES, predictions) == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": math.nan},
        {"score": math.inf},
        {"score": "0.9"},
        {"bbox": [0, 0, math.nan, 5]},
        {"bbox": [0, 0, 5]},
        {"bbox": None},
    ],
    ids=str,
)
def test_numbers_that_are_none(wrong):
    with pytest.raises(ValueError, match="prediction 1: expected a finite score and four finite"):
        choose_labels(IMAGES, [found(5, 0.9), found(5, 0.9) | wrong])


@pytest.mark.parametrize("score", [-0.1, 1.1, 60, math.nan])
def test_threshold_outside_its_range(score):
    with pytest.raises(ValueError, match=r"score: expected a threshold in \[0, 1\], found"):
        choose_labels(IMAGES, [found(5, 0.9)], score=score)


@pytest.fixture
def files(tmp_path):
    """The files and a function that writes both."""

    def write(predictions, **images):
        content = {"images": IMAGES, "categories": CATEGORIES, "annotations": [], **images}
        (tmp_path / "images.json").write_text(json.dumps(content))
        (tmp_path / "p.bbox.json").write_text(json.dumps(predictions))
        return tmp_path / "images.json", tmp_path / "p.bbox.json", tmp_path / "new" / "labels.json"

    return write


def test_file(files):
    images, predictions, out = files([found(5, 0.9), found(5, 0.7), found(3, 0.1)])
    info = write_pseudo_labels(images, predictions, out)
    content = json.loads(out.read_text())
    assert content["info"] == info
    assert info == {
        "description": "DAP pseudo labels",
        "score_threshold": 0.6,
        "predictions_sha256": hashlib.sha256(predictions.read_bytes()).hexdigest(),
        "images": 4,
        "kept_by_score": 2,
        "kept_as_best": 1,
        "dropped_below_one_pixel": 0,
        "images_without_labels": 2,
    }
    assert (content["images"], content["categories"]) == (IMAGES, CATEGORIES)
    assert [label["id"] for label in content["annotations"]] == [1, 2, 3]
    assert [path.name for path in out.parent.iterdir()] == ["labels.json"]


def test_file_with_other_content_is_not_written_over(files):
    paths = files([found(5, 0.9), found(5, 0.5)])
    info = write_pseudo_labels(*paths)
    before = paths[2].read_bytes()
    assert write_pseudo_labels(*paths) == info
    with pytest.raises(FileExistsError, match=r"labels\.json is there with other content"):
        write_pseudo_labels(*paths, score=0.4)
    assert paths[2].read_bytes() == before


def test_unknown_image(files):
    with pytest.raises(ValueError, match=r"p\.bbox\.json: prediction 0: image_id 6 is none of"):
        write_pseudo_labels(*files([found(6, 0.9)]))


def test_unknown_category(files):
    with pytest.raises(ValueError, match=r"category_id 1 is none of the 2 of"):
        write_pseudo_labels(*files([found(5, 0.9), found(5, 0.1, category_id=1)]))


def test_ground_truth_is_refused(files):
    paths = files([found(5, 0.9)], annotations=[{"id": 1}])
    with pytest.raises(ValueError, match=r"without labels, found 1 annotations"):
        write_pseudo_labels(*paths)
    assert not paths[2].exists()


@pytest.mark.parametrize("lacking", ["id", "width", "height"])
def test_image_that_lacks_something(files, lacking):
    images = [IMAGES[0], {key: value for key, value in IMAGES[1].items() if key != lacking}]
    message = r"images\.json: image 1 is .*expected id, width and height.*unlabelled_images\.py"
    with pytest.raises(ValueError, match=message):
        write_pseudo_labels(*files([found(5, 0.9)], images=images))


def test_image_ids_that_stand_twice(files):
    images = [*IMAGES, IMAGES[1] | {"file_name": "z.jpg"}]
    message = r"images\.json: 1 image ids occur twice, such as 3.*unlabelled_images\.py"
    with pytest.raises(ValueError, match=message):
        write_pseudo_labels(*files([found(5, 0.9)], images=images))


def test_predictions_that_were_cut_off(files):
    images, predictions, out = files([found(5, 0.9)])
    predictions.write_text(predictions.read_text()[:-9])
    with pytest.raises(
        ValueError, match=r"p\.bbox\.json: .*Remove the file and run the test again"
    ):
        write_pseudo_labels(images, predictions, out)


def test_files_exchanged(files):
    images, predictions, out = files([found(5, 0.9)])
    with pytest.raises(ValueError, match="expected a COCO file with images"):
        write_pseudo_labels(predictions, images, out)
    with pytest.raises(ValueError, match="expected COCO results"):
        write_pseudo_labels(images, images, out)
    images.write_text("not json")
    with pytest.raises(ValueError, match=r"images\.json: expected JSON"):
        write_pseudo_labels(images, predictions, out)


def test_tool(files, run_here):
    images, predictions, out = files([found(5, 0.9), found(5, 0.5), found(3, 0.1)])
    command = ["pseudo_labels", images, predictions, "--out", out]
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    assert "labels by score >= 0.6: 1, as the best of their image: 1; " in done.stdout
    assert "images: 4, without labels: " in done.stdout
    done = run_here(*command, "--score", 0.5)
    assert done.returncode == 1
    assert re.search(r"error: .*labels\.json is there with other content", done.stderr)
    assert len(json.loads(out.read_text())["annotations"]) == 2
