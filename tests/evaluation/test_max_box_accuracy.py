"""MaxBoxAcc and MaxBoxAccV2 by hand, and against a naive reading of their definition."""

import cv2
import numpy as np
import pytest

from dap.evaluation.max_box_accuracy import THRESHOLDS, MaxBoxAccuracy, contour_boxes

IOUS = (0.3, 0.5, 0.7)


def drawn(*rows):
    """A map from one character a pixel: '.' is 0, a digit tenths, '#' 1."""
    values = {".": 0.0, "#": 1.0, **{str(i): i / 10 for i in range(1, 10)}}
    return np.array([[values[character] for character in row] for row in rows], np.float32)


def summary_of(*cases, side=None, thresholds=()):
    accuracy = MaxBoxAccuracy(side)
    for score_map, boxes, *label in cases:
        accuracy.add(np.asarray(score_map), np.array(boxes, float), *label)
    return accuracy.summary(thresholds)


class TestContourBoxes:
    def test_two_blobs(self):
        """The ends are one pixel behind the blob, unless the map ends there."""
        image = 255 * drawn(".....", ".##..", ".##..", "....#", ".....").astype(np.uint8)
        boxes, largest = contour_boxes(image, 0)
        assert sorted(boxes.tolist()) == [[1, 1, 3, 3], [4, 3, 4, 4]]
        assert boxes[largest].tolist() == [1, 1, 3, 3]

    def test_corners_touch(self):
        """Eight neighbours: a diagonal is one component."""
        boxes, _ = contour_boxes(255 * drawn("#....", ".#...", "..#..", ".....").astype("u1"), 0)
        assert boxes.tolist() == [[0, 0, 3, 3]]

    def test_hole_has_a_contour(self):
        """That of the pixels around it: 1 to 3, box 1 to 4 in a ring with the hole at 2."""
        ring = drawn("######", "######", "##.###", "######", "######", "######")
        boxes, largest = contour_boxes(255 * ring.astype(np.uint8), 0)
        assert sorted(boxes.tolist()) == [[0, 0, 5, 5], [1, 1, 4, 4]]
        assert boxes[largest].tolist() == [0, 0, 5, 5]

    def test_area_is_that_of_the_contour(self):
        """Through pixel centres, 7 pixels in a row enclose nothing, 2 x 2 pixels enclose 1."""
        image = 255 * drawn("#######", ".......", "##.....", "##.....", ".......").astype("u1")
        boxes, largest = contour_boxes(image, 0)
        assert boxes[largest].tolist() == [0, 2, 2, 4]

    @pytest.mark.parametrize("level", [0, 100])
    def test_nothing_above(self, level):
        boxes, largest = contour_boxes(np.full((4, 4), level, np.uint8), level)
        assert (boxes.tolist(), largest) == ([[0, 0, 0, 0]], 0)


# A plateau of .5 over 6 x 6 pixels with 2 x 2 pixels of 1 in its corner. Of 255, .5 is 127.5,
# rounded down 127: up to level 126 the box is (2, 2, 8, 8), from 127 on (2, 2, 4, 4).
PLATEAU = drawn(
    "..........",
    "..........",
    "..##5555..",
    "..##5555..",
    *["..555555.."] * 4,
    "..........",
    "..........",
)
WIDE, NARROW = [2, 2, 7, 7], [2, 2, 4, 4]
# With the last pixel, (2, 2, 8, 8) has 49 px: IoU 36 / 49 = .735 with WIDE, 9 / 49 = .184 with
# NARROW. (2, 2, 4, 4) has 9: 9 / 36 = .25 with WIDE, 1 with NARROW.


class TestByHand:
    def test_one_map(self):
        found = summary_of((PLATEAU, [WIDE]), thresholds=(0.2, 0.5))
        assert found["max_box_acc"] == found["max_box_acc_v2"] == 1
        assert found["thresholds"]["max_box_acc"] == 0
        assert found["at_fixed_thresholds"]["0.2"]["max_contour"] == 1
        assert found["at_fixed_thresholds"]["0.5"] == {
            "max_contour": 0,
            "all_contours": 0,
            "all_contours_by_iou": {"0.3": 0, "0.5": 0, "0.7": 0},
        }

    def test_one_threshold_for_all_maps(self):
        """WIDE needs a low one, NARROW a high one: two of three at best, from .499 on.

        .499 * 255 = 127.2 is the first that is cut at 127; .498 * 255 = 126.99.
        """
        found = summary_of((PLATEAU, [WIDE]), (PLATEAU, [NARROW]), (PLATEAU, [NARROW]))
        assert found["max_box_acc"] == pytest.approx(2 / 3)
        assert found["thresholds"]["max_box_acc"] == 0.499
        assert found["thresholds"]["max_box_acc_v2_by_iou"] == dict.fromkeys(map(str, IOUS), 0.499)

    def test_each_iou_has_its_threshold(self):
        """(2, 2, 5, 5) has 16 px: 16 / 49 = .327 with the wide box, 9 / 16 = .5625 with the other.

        Right at IoU .3 with both, at .5 from .499 on, at .7 never: (1 + 1 + 0) / 3.
        """
        found = summary_of((PLATEAU, [[2, 2, 5, 5]]))
        assert found["max_box_acc_v2_by_iou"] == {"0.3": 1, "0.5": 1, "0.7": 0}
        assert found["max_box_acc_v2"] == pytest.approx(2 / 3)
        taus = found["thresholds"]["max_box_acc_v2_by_iou"]
        assert taus == {"0.3": 0, "0.5": 0.499, "0.7": 0}

    def test_small_blob(self):
        """V1 looks at the largest contour alone, V2 at all."""
        blobs = drawn("###.....", "###.....", "###.....", "......##", "......##", "........")
        found = summary_of((blobs, [[6, 3, 7, 5]]))
        assert (found["max_box_acc"], found["max_box_acc_v2"]) == (0, 1)

    def test_any_ground_truth_box(self):
        assert summary_of((PLATEAU, [[0, 0, 1, 1], WIDE]))["max_box_acc"] == 1

    def test_exactly_half(self):
        """(0, 0, 1, 1) has 4 px with its last ones, truth (0, 0, 1, 3) 8: IoU .5 is right."""
        corner = drawn("#....", ".....", ".....", ".....", ".....")
        assert summary_of((corner, [[0, 0, 1, 3]]))["max_box_acc"] == 1
        assert summary_of((corner, [[0, 0, 2, 2]]))["max_box_acc"] == 0  # 4 / 9

    def test_constant_map(self):
        """It has the box (0, 0, 0, 0): one pixel."""
        found = summary_of(
            (np.full((5, 5), 0.7), [[0, 0, 4, 4]]), (np.zeros((5, 5)), [[0, 0, 0, 0]])
        )
        assert found["max_box_acc"] == 0.5

    def test_normalisation(self):
        """Any finite values will do."""
        expected = summary_of((PLATEAU, [WIDE]), (PLATEAU, [NARROW]))
        shifted = 7 * PLATEAU - 20
        assert summary_of((shifted, [WIDE]), (shifted, [NARROW])) == expected

    def test_per_class(self):
        """The threshold is that of all classes: NARROW's two maps win over WIDE's one."""
        found = summary_of((PLATEAU, [WIDE], 5), (PLATEAU, [NARROW], 3), (PLATEAU, [NARROW], 3))
        assert list(found["per_class"]) == [3, 5]
        assert [own["images"] for own in found["per_class"].values()] == [2, 1]
        assert [own["max_box_acc"] for own in found["per_class"].values()] == [1, 0]


class TestResizing:
    def test_height_and_width(self):
        """The upper half of a map of 448 x 224 px becomes that of 224 x 224.

        Its truth, (0, 0, 224, 224) in pixels, ends at the last column, x2 = 223 * 224 / 224 = 223,
        and in the middle of the rows, y2 = 224 * 224 / 448 = 112.
        """
        tall = np.zeros((448, 224), np.float32)
        tall[:224] = 1
        accuracy = MaxBoxAccuracy()
        box = np.array([[0, 0, 224, 224]])
        assert accuracy._truth(box, tall.shape).tolist() == [[0, 0, 223, 112]]
        accuracy.add(tall, box)
        assert accuracy.summary()["max_box_acc_v2"] == 1
        wide = summary_of((tall.T, [[0, 0, 224, 224]]), side=224)
        assert wide["max_box_acc_v2"] == 1

    def test_truth_in_small_pixels(self):
        """A published case: x 1 * 35 / 10 = 3.5, y 3 * 35 / 20 = 5.25, rounded down."""
        truth = MaxBoxAccuracy(35)._truth(np.array([[1, 2, 4, 3]]), (20, 10))
        assert truth.tolist() == [[3, 3, 14, 5]]


def components(mask, neighbours):
    """Flood fill: the sets of connected pixels."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        front = [left.pop()]
        own = set(front)
        while front:
            y, x = front.pop()
            for dy, dx in neighbours:
                if (y + dy, x + dx) in left:
                    left.remove((y + dy, x + dx))
                    own.add((y + dy, x + dx))
                    front.append((y + dy, x + dx))
        found.append(own)
    return found


FOUR = [(0, 1), (1, 0), (0, -1), (-1, 0)]
EIGHT = [*FOUR, (1, 1), (1, -1), (-1, 1), (-1, -1)]


def outside_of(component, size):
    """The pixels around a component, also beyond the map, that are connected with its frame."""
    mask = np.ones((size + 2, size + 2), bool)
    for y, x in component:
        mask[y + 1, x + 1] = False
    (frame,) = [own for own in components(mask, FOUR) if (0, 0) in own]
    return {(y - 1, x - 1) for y, x in frame}


def enclosed_area(component, size):
    """Area within the line through the centres of the outermost pixels.

    A square of four neighbouring pixels that are the component's or in its holes is within; of a
    square with three, half.
    """
    outside = outside_of(component, size)
    area = 0.0
    for y in range(size - 1):
        for x in range(size - 1):
            square = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)]
            count = sum(pixel not in outside for pixel in square)
            area += {4: 1.0, 3: 0.5}.get(count, 0.0)
    return area


def naive_iou(a, b):
    """IoU of the sets of pixels from (x1, y1) to (x2, y2), both included."""
    sets = [
        {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)} for x1, y1, x2, y2 in (a, b)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def naive_boxes(mask):
    """Boxes of outlines with their areas, and boxes of holes, as the definition says."""
    size = len(mask)

    def box(pixels, margin=0):
        ys, xs = zip(*pixels, strict=True)
        x2, y2 = (min(max(side) + 1 + margin, size - 1) for side in (xs, ys))
        return (min(xs) - margin, min(ys) - margin, x2, y2)

    outlines = [(box(own), enclosed_area(own, size)) for own in components(mask, EIGHT)]
    beyond = np.pad(~mask, 1, constant_values=True)
    holes = [
        box({(y - 1, x - 1) for y, x in own}, margin=1)
        for own in components(beyond, FOUR)
        if (0, 0) not in own
    ]
    return outlines or [((0, 0, 0, 0), 0.0)], holes


def naive_right(score_map, truth, threshold):
    """Whether the largest is right for some and for all of the largest; any, at each IoU."""
    normalised = (score_map - score_map.min()) / (score_map.max() - score_map.min())
    image = np.floor(normalised * 255)
    outlines, holes = naive_boxes(image > int(threshold * 255))
    best = {box: max(naive_iou(box, own) for own in truth) for box, _ in outlines}
    top = max(area for _, area in outlines)
    largest = [best[box] >= 0.5 for box, area in outlines if area == top]
    highest = max([*best.values(), *(naive_iou(box, own) for box in holes for own in truth)])
    return [any(largest), all(largest), *(highest >= iou for iou in IOUS)]


def random_case(rng, size):
    """A smooth map of few different values with a hole now and then, and boxes near its blobs."""
    score_map = cv2.resize(rng.random((5, 5)), (size, size), interpolation=cv2.INTER_CUBIC)
    score_map = np.round(8 * score_map)
    outlines, _ = naive_boxes(score_map > rng.integers(3, 6))
    ends = size - 1
    boxes = [(max(x1 - 1, 0), y1, x2, min(y2 + 1, ends)) for (x1, y1, x2, y2), _ in outlines[-2:]]
    return score_map, boxes


def test_against_the_definition():
    """All figures, from pixels and flood fill."""
    rng, size, count = np.random.default_rng(3), 11, 60
    accuracy, holes = MaxBoxAccuracy(side=None), 0
    of_level = np.zeros((5, 255))
    for _ in range(count):
        score_map, truth = random_case(rng, size)
        accuracy.add(score_map, np.array(truth, float))
        known = {}
        for level in range(255):
            threshold = (level + 0.5) / 255
            normalised = (score_map - score_map.min()) / np.ptp(score_map)
            mask = np.floor(normalised * 255) > level
            if mask.tobytes() not in known:
                known[mask.tobytes()] = naive_right(score_map, truth, threshold)
                holes += len(naive_boxes(mask)[1])
            of_level[:, level] += known[mask.tobytes()]
    assert holes > 50
    levels = [int(threshold * 255) for threshold in THRESHOLDS]
    assert set(levels) == set(range(255))
    share = of_level / count
    found = accuracy.summary(THRESHOLDS[::25])
    for threshold in THRESHOLDS[::25]:
        own = found["at_fixed_thresholds"][str(threshold)]
        some, every, *any_contour = share[:, int(threshold * 255)]
        assert every - 1e-9 <= own["max_contour"] <= some + 1e-9
        assert list(own["all_contours_by_iou"].values()) == pytest.approx(any_contour)
    assert (share[0] - share[1]).max() < 0.1  # areas are seldom equal
    assert share[1].max() - 1e-9 <= found["max_box_acc"] <= share[0].max() + 1e-9
    assert 0.2 < found["max_box_acc"] < 1
    assert list(found["max_box_acc_v2_by_iou"].values()) == pytest.approx(share[2:].max(axis=1))
    assert found["max_box_acc_v2"] == pytest.approx(share[2:].max(axis=1).mean())


class TestErrors:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_not_finite(self, bad):
        with pytest.raises(ValueError, match="found NaN or infinite values"):
            MaxBoxAccuracy().add(np.array([[0.0, bad]]), np.array([[0, 0, 1, 1]]))

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"expected shape \(H, W\), found \(1, 5, 5\)"):
            MaxBoxAccuracy().add(np.zeros((1, 5, 5)), np.array([[0, 0, 1, 1]]))
        with pytest.raises(ValueError, match=r"M > 0, found \(0, 4\)"):
            MaxBoxAccuracy().add(np.zeros((5, 5)), np.zeros((0, 4)))

    def test_summary(self):
        with pytest.raises(ValueError, match="no map has been added"):
            MaxBoxAccuracy().summary()
        with pytest.raises(ValueError, match=r"expected values in \[0, 1\), found \[1.0\]"):
            summary_of((PLATEAU, [WIDE]), thresholds=[0.5, 1.0])

    def test_map_is_not_changed(self):
        before = PLATEAU.copy()
        summary_of((PLATEAU, [WIDE]), side=None)
        summary_of((PLATEAU, [WIDE]), side=224)
        assert (PLATEAU == before).all()
