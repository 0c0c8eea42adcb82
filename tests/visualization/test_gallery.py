"""Tiles and montages: boxes and maps are read back from the pixels."""

import cv2
import numpy as np
import pytest

from dap.visualization.gallery import (
    COLOURS_BGR,
    TRUTH_BGR,
    UNKNOWN_BGR,
    colour_of,
    draw_tile,
    encoded,
    headed,
    montage,
    write_picture,
)

GREY = np.full((100, 200, 3), 110, np.uint8)
BOXES = np.array([[20.0, 10, 120, 70], [50, 30, 90, 50]])


def corners(box):
    """Pixels of the rim: half-open boxes end a pixel before x2, y2."""
    x1, y1, x2, y2 = (int(value) for value in box)
    return [(x1, y1), (x2 - 1, y1), (x1, y2 - 1), (x2 - 1, y2 - 1), ((x1 + x2) // 2, y1)]


def test_boxes_are_where_they_should_be():
    """A tile of 204 px shows an image of 200 px at its own size, from the upper left corner on."""
    given = GREY.copy()
    tile = draw_tile(given, BOXES, COLOURS_BGR[:2], side=204)
    assert tile.shape == (204, 204, 3)
    assert (given == 110).all()
    for box, colour in zip(BOXES, COLOURS_BGR, strict=False):
        for x, y in corners(box):
            assert tile[y, x].tolist() == list(colour)
    assert tile[95, 195].tolist() == [110, 110, 110]
    assert tile[110, 100].tolist() == [255, 255, 255]  # below the wide image


@pytest.mark.parametrize(("size_hw", "scale"), [((400, 800), 0.25), ((50, 100), 2.0)])
def test_boxes_shrink_and_grow_with_the_image(size_hw, scale):
    image = np.full((*size_hw, 3), 110, np.uint8)
    tile = draw_tile(image, BOXES / scale, COLOURS_BGR[:2], side=204)
    assert all(tile[y, x].tolist() == list(COLOURS_BGR[0]) for x, y in corners(BOXES[0]))


def test_true_boxes_are_white_with_a_black_rim():
    tile = draw_tile(GREY, np.zeros((0, 4)), [], truth=BOXES[:1], side=204)
    assert all(tile[y, x].tolist() == list(TRUTH_BGR) for x, y in corners(BOXES[0]))
    assert tile[40, 18].tolist() == [0, 0, 0]


def test_masks_are_thin_outlines_with_their_holes():
    mask = np.zeros((100, 200), bool)
    mask[20:60, 40:100] = True
    mask[30:50, 60:80] = False
    tile = draw_tile(GREY, BOXES[:1], COLOURS_BGR[:1], side=204, masks=[mask])
    colour = list(COLOURS_BGR[0])
    assert all(tile[y, x].tolist() == colour for x, y in ((40, 20), (99, 59), (70, 20), (59, 40)))
    assert tile[25, 50].tolist() == tile[40, 70].tolist() == [110, 110, 110]


def test_map_lies_over_the_image():
    heat = np.zeros((100, 200), np.float32)
    heat[25:50, 150:175] = 1
    tile = draw_tile(GREY, np.zeros((0, 4)), [], heat, side=204).astype(int)
    blue, _, red = tile[37, 162]
    assert red > blue
    blue, _, red = tile[90, 10]
    assert blue > red


def test_colours_go_by_the_rank_of_the_threshold():
    assert colour_of(0, [0.5, 0.2]) == COLOURS_BGR[1]
    assert colour_of(1, [0.5, 0.2]) == COLOURS_BGR[0]
    assert colour_of(255, [0.5]) == UNKNOWN_BGR


def test_montage_fills_the_last_row_with_white():
    tiles = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    picture = montage(tiles, columns=2)
    assert picture.shape == (8, 12, 3)
    assert [picture[y, x, 0] for y, x in ((0, 0), (0, 6), (4, 0), (4, 6))] == [10, 20, 30, 255]
    with pytest.raises(ValueError, match="found none"):
        montage([])


def test_titles_stand_over_their_columns():
    picture = headed(np.zeros((10, 200, 3), np.uint8), ["a", "b"])
    strip = picture[:24]
    assert picture.shape == (34, 200, 3)
    assert (strip[:, :100] < 128).any()
    assert (strip[:, 100:] < 128).any()
    assert (picture[24:] == 0).all()


def test_files_are_whole_or_an_error(tmp_path):
    path = write_picture(tmp_path / "new" / "a.png", GREY)
    assert (cv2.imread(str(path)) == GREY).all()
    assert encoded(GREY).startswith(b"\xff\xd8")
    with pytest.raises(OSError, match=r"a\.png"):
        write_picture(tmp_path / "new" / "a.png" / "b.png", GREY)
