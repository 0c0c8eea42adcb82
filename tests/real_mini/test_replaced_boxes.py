"""Controls whose boxes do not come from activation maps, worked out by hand."""

import json

import pytest

ANNOTATIONS = {
    "info": {"by": "hand"},
    "categories": [{"id": 4, "name": "fox"}, {"id": 9, "name": "owl"}],
    "images": [
        {"id": 3, "file_name": "a.jpg", "width": 200, "height": 100},
        {"id": 5, "file_name": "none.jpg", "width": 50, "height": 60},
        {"id": 7, "file_name": "b.jpg", "width": 40, "height": 80},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 4, "bbox": [20, 10, 40, 30], "area": 1200},
        {"id": 2, "image_id": 3, "category_id": 4, "bbox": [100, 50, 100, 50], "area": 5000},
        {"id": 3, "image_id": 7, "category_id": 9, "bbox": [0, 8, 20, 40], "area": 800},
    ],
}


def boxes(project, kind):
    made = project["replace_boxes"].replace_boxes(ANNOTATIONS, kind)
    return [(a["image_id"], a["category_id"], a["bbox"], a["area"]) for a in made["annotations"]]


def test_whole_image(project):
    assert boxes(project, "whole") == [
        (3, 4, [0, 0, 200, 100], 20000),
        (7, 9, [0, 0, 40, 80], 3200),
    ]


def test_centre_box_is_half_of_the_area(project):
    (image, category, box, area), second = boxes(project, "centre")
    assert (image, category) == (3, 4)
    assert box == [29.29, 14.64, 141.42, 70.71]  # (1 - 1/√2)/2 and 1/√2 of 200 and 100
    assert area == pytest.approx(10000, rel=1e-4)
    assert second[2] == [5.86, 11.72, 28.28, 56.57]


def test_foreign_boxes_swap_between_images(project):
    """Two images with boxes: each gets the other's, in fractions, and keeps its own class."""
    assert boxes(project, "foreign") == [
        (3, 4, [0, 10, 100, 50], 5000),  # (0, .1, .5, .5) of 200 x 100
        (7, 9, [4, 8, 8, 24], 192),  # (.1, .1, .2, .3) of 40 x 80
        (7, 9, [20, 40, 20, 40], 800),
    ]


def test_no_image_keeps_its_boxes_among_foreign_ones(project):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in range(9)]
    annotations = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [i, i, 10, 10], "area": 100}
        for i in range(9)
    ]
    given = {"images": images, "annotations": annotations, "categories": []}
    made = project["replace_boxes"].replace_boxes(given, "foreign")["annotations"]
    assert sorted(a["bbox"][0] for a in made) == list(range(9))
    assert all(a["bbox"][0] != a["image_id"] for a in made)


def test_largest_box(project):
    assert boxes(project, "largest") == [
        (3, 4, [100, 50, 100, 50], 5000),
        (7, 9, [0, 8, 20, 40], 800),
    ]


def test_replaced_boxes_leave_the_file_as_it_is(project):
    before = json.dumps(ANNOTATIONS)
    made = project["replace_boxes"].replace_boxes(ANNOTATIONS, "centre")
    assert json.dumps(ANNOTATIONS) == before
    assert made["images"] == ANNOTATIONS["images"]
    assert made["categories"] == ANNOTATIONS["categories"]
    with pytest.raises(ValueError, match=r"kind: expected one of .*'whole'.*, found 'half'"):
        project["replace_boxes"].replace_boxes(ANNOTATIONS, "half")
    with pytest.raises(ValueError, match=r"found no box"):
        project["replace_boxes"].replace_boxes({**ANNOTATIONS, "annotations": []}, "whole")
