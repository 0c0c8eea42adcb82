"""Boxes of small maps, compared with a slow reference in plain Python.

The reference follows the text of the paper (section 3.1, eqs. 1-6) and the rules of its official
release cell by cell. It calls nothing of ``dap``.
"""

from math import exp, sqrt
from typing import NamedTuple

import numpy as np
import pytest

from dap.cam import RULES, box_candidates, boxes_from_cam
from tests.support.maps import assert_same_set, drawn


class Case(NamedTuple):
    """A map and what its boxes depend on; sizes in the order (y, x)."""

    cam: np.ndarray
    thresholds: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5)
    cell_size: tuple[float, float] = (1, 1)
    image_size_hw: tuple[float, float] | None = None


def bumps(height, width, *peaks):
    """A sum of Gaussians, each given by its height, its centre (y, x) and its spread (y, x)."""
    return np.array(
        [
            [
                sum(
                    top * exp(-(((y - at_y) / spread_y) ** 2) - ((x - at_x) / spread_x) ** 2)
                    for top, at_y, at_x, spread_y, spread_x in peaks
                )
                for x in range(width)
            ]
            for y in range(height)
        ]
    )


CASES = {
    "one blob": Case(drawn("......", "..45..", ".4##3.", ".37#2.", "......")),
    "two blobs": Case(drawn("........", ".##..2#.", ".#6..3#.", "........")),
    "blobs that touch by a corner": Case(drawn(".....", ".##..", ".##..", "...##", "...#7")),
    "hole": Case(drawn(".....", ".###5", ".#1#5", ".###5", ".....")),
    "two holes and a blob inside one": Case(
        drawn("########", "#......#", "#.##...#", "#.##...#", "########", "#......#", "########"),
        (0.5,),
    ),
    "one cell": Case(drawn("....", "..#.", "....")),
    "map of two cells": Case(drawn("#6")),
    "map of one row": Case(drawn(".3####5..#")),
    "map of one column": Case(drawn(*".3##5.#")),
    "all zero": Case(np.zeros((4, 5))),
    "values at the thresholds": Case(drawn("2.3.4.5.#", "........#", "5.4.3.2.#")),
    "half of the largest area, and less": Case(
        drawn("##.....###", "##..#..###", "....#.....", "#.###....#"), (0.5,)
    ),
    "more blobs than the release takes": Case(
        drawn("##.##.#.", "........", "##.##.#.", "........", "##...##.", "........"), (0.5,)
    ),
    "image smaller than the map": Case(
        drawn("......#", "..###.#", "..###.#", "......#"), (0.5,), (32, 32), (70, 185)
    ),
    "blobs at all borders": Case(drawn("##..#", "#....", "....3", "#...#", "##.##")),
    "plateau": Case(drawn("......", ".3333.", ".3#63.", ".3333.", "......")),
    "blob that falls apart at a higher threshold": Case(
        bumps(12, 17, (1, 5, 4, 3, 3), (0.9, 6, 11, 3, 3)), (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
    ),
    "bumps in an image that is not square": Case(
        bumps(9, 14, (1, 2, 3, 1.5, 2.5), (0.8, 6, 9, 2, 3), (0.4, 1, 12, 1, 1)),
        (0.2, 0.3, 0.4, 0.5),
        (31.5, 24.25),
        (270, 333),
    ),
    "negative values": Case(drawn("...", ".#6", "...") - 0.75, (0.1, 0.2, 0.6)),
    "tiny values": Case(1e-20 * bumps(7, 8, (1, 3, 3, 2, 1)), (0.2, 0.5)),
    "large values": Case(1e20 * bumps(8, 7, (1, 3, 3, 1, 2), (0.7, 6, 1, 1, 1)), (0.2, 0.5)),
}


def components(above):
    """Flood fill over the four neighbours; each component a list of (y, x), in scan order."""
    height, width = len(above), len(above[0])
    seen, result = set(), []
    for start in ((y, x) for y in range(height) for x in range(width)):
        if start in seen or not above[start[0]][start[1]]:
            continue
        seen.add(start)
        cells = [start]
        for y, x in cells:  # the list grows
            for cell in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= cell[0] < height and 0 <= cell[1] < width
                if inside and above[cell[0]][cell[1]] and cell not in seen:
                    seen.add(cell)
                    cells.append(cell)
        result.append(cells)
    return result


def moment_box(weights):
    """Eqs. 3-6 over {(y, x): weight}, at least one cell wide and high."""
    total = sum(weights.values())
    means, sides = [], []
    for axis in (1, 0):
        mean = sum(m * (cell[axis] + 0.5) for cell, m in weights.items()) / total
        variance = sum(m * (cell[axis] + 0.5 - mean) ** 2 for cell, m in weights.items()) / total
        means.append(mean)
        sides.append(max(1.0, sqrt(12 * variance)))
    (x, y), (w, h) = means, sides
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def paper_boxes(values, tau):
    """Boxes in cells: all components of at least half as many cells as the largest has."""
    blobs = components([[value > tau for value in row] for row in values])
    most = max(map(len, blobs), default=0)
    return [
        moment_box({(y, x): values[y][x] for y, x in blob})
        for blob in blobs
        if 2 * len(blob) >= most
    ]


def release_boxes(values, tau):
    """Boxes in cells: at most four slices, each at least half as large as the largest."""
    above = [[value > tau for value in row] for row in values]
    slices = []
    for number, blob in enumerate(components(above)):
        rows, columns = zip(*blob, strict=True)
        y1, x1, y2, x2 = min(rows), min(columns), max(rows) + 1, max(columns) + 1
        slices.append(((y2 - y1) * (x2 - x1), number, (y1, x1, y2, x2)))
    boxes = []
    for area, _, (y1, x1, y2, x2) in sorted(slices, reverse=True)[:4]:
        if 2 * area >= max(slices)[0]:
            cells = [(y, x) for y in range(y1, y2) for x in range(x1, x2) if above[y][x]]
            boxes.append(moment_box({(y, x): values[y][x] + 0.22 for y, x in cells}))
    return boxes


def candidates(case, rule):
    """Boxes of all thresholds in pixels, clipped, those outside the image left out."""
    values = case.cam.tolist()
    low, high = min(map(min, values)), max(map(max, values))
    if low == high:
        return []
    if rule == "paper":
        values = [[(value - low) / (high - low) for value in row] for row in values]  # eq. 1
    cell_y, cell_x = case.cell_size
    rows, columns = case.cam.shape
    height, width = case.image_size_hw or (rows * cell_y, columns * cell_x)
    if rule == "release":
        height, width = height - 1, width - 1
    of_tau = {"paper": paper_boxes, "release": release_boxes}[rule]
    pixels = [
        (
            max(0, x1 * cell_x),
            max(0, y1 * cell_y),
            min(width, x2 * cell_x),
            min(height, y2 * cell_y),
        )
        for tau in case.thresholds
        for x1, y1, x2, y2 in of_tau(values, tau)
    ]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in pixels if x1 < x2 and y1 < y2]


def merged(boxes, rule, limit=0.8):
    """Non-maximum suppression: the larger box wins; equal ones stand in their order."""
    extra = 1 if rule == "release" else 0

    def iou(one, other):
        def area(x1, y1, x2, y2):
            return max(0, x2 - x1 + extra) * max(0, y2 - y1 + extra)

        both = area(*map(max, one[:2], other[:2]), *map(min, one[2:], other[2:]))
        return both / (area(*one) + area(*other) - both)

    kept = []
    for box in sorted(boxes, key=lambda b: -(b[2] - b[0]) * (b[3] - b[1])):
        overlaps = [iou(box, other) for other in kept]
        if all(value < limit if rule == "release" else value <= limit for value in overlaps):
            kept.append(box)
    return kept


@pytest.mark.parametrize("rule", ["paper", "release"])
@pytest.mark.parametrize("name", CASES)
def test_boxes_are_those_of_the_reference(name, rule):
    case = CASES[name]
    expected = candidates(case, rule)
    scale = max(case.cell_size)
    found = box_candidates(case.cam, case.thresholds, rule, case.cell_size, case.image_size_hw)
    np.testing.assert_allclose(found.boxes, np.reshape(expected, (-1, 4)), 0, 1e-9 * scale)
    boxes, scores = boxes_from_cam(
        case.cam, case.thresholds, 0.8, rule, case.cell_size, case.image_size_hw
    )
    assert_same_set(boxes, merged(expected, rule), 1e-9 * scale)
    sides = boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(scores, sides[:, 0] * sides[:, 1])


def test_cases_differ_between_the_rules_and_have_boxes():
    """What the maps are for: several boxes, some that NMS drops, some by one rule alone."""
    counts = {
        rule: {name: len(candidates(case, rule)) for name, case in CASES.items()}
        for rule in ("paper", "release")
    }
    assert sum(count > 1 for count in counts["paper"].values()) > len(CASES) / 2
    assert sum(counts["paper"][name] != counts["release"][name] for name in CASES) >= 5
    dropped = [
        len(c) > len(merged(c, "paper"))
        for c in (candidates(case, "paper") for case in CASES.values())
    ]
    assert sum(dropped) > len(CASES) / 4


@pytest.mark.parametrize("rule", RULES)
def test_map_with_a_nan_is_refused(rule):
    cam = CASES["one blob"].cam.copy()
    cam[-1, 2] = float("nan")
    with pytest.raises(ValueError, match=rf"1 of {cam.size} cells are NaN or infinite"):
        boxes_from_cam(cam, rule=rule)
