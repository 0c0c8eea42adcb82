"""Mask IoU and PxAP by hand, and against the definition of the publication."""

import numpy as np
import pytest

from dap.evaluation.masks import MaskQuality, PixelAveragePrecision, mask_overlaps, union
from dap.store.masks import encode_mask, segmentation


def rle(*rows):
    mask = np.array([[cell == "#" for cell in row] for row in rows])
    return segmentation(encode_mask(mask), mask.shape)


def px_ap(*maps):
    pixels = PixelAveragePrecision(side=None)
    for arrays in maps:
        pixels.add(*(np.asarray(array) for array in arrays))
    return pixels.value()


def published(scores, truth):
    """The sum as the authors' code has it: bins of scores, the highest first."""
    edges = np.append(np.arange(0, 1, 0.001), [1.0, 2.0, 3.0])
    right, wrong = (np.histogram(scores[part], edges)[0][::-1].cumsum() for part in (truth, ~truth))
    with np.errstate(invalid="ignore"):
        precision, recall = right / (right + wrong), right / right[-1]
    return (precision[1:] * np.diff(recall))[(right + wrong)[1:] != 0].sum()


def test_overlap_of_masks():
    """2 of 4 pixels in common: 2 / 4; and none, which is 0."""
    masks = [rle("##.", "#.."), rle("...", "...")]
    truth = [rle("##.", ".#."), rle("..#", "..#")]
    np.testing.assert_allclose(mask_overlaps(masks, truth), [[2 / 4, 0], [0, 0]])
    # On one to be ignored, the share of the mask that lies within.
    np.testing.assert_allclose(mask_overlaps(masks[:1], truth[:1], np.array([True])), [[2 / 3]])
    assert mask_overlaps([], truth).shape == (0, 2)


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"sizes \(H, W\) \[\(1, 2\), \(2, 2\)\]; expected one"):
        mask_overlaps([rle("##")], [rle("##", "##")])


def test_union():
    masks = [rle("#..."), rle(".#.."), rle("...#")]
    assert union(masks, np.array([True, False, True]), (1, 4)).tolist() == [
        [True, False, False, True]
    ]
    assert not union(masks, np.zeros(3, bool), (1, 4)).any()


def test_quality_by_masks_not_boxes():
    """Both boxes are those of their objects; one mask fits, the other covers a quarter.

    The best IoU of the objects of class 0 are 1 and 1/4; the one of class 1 has no mask of its
    class: mean 1.25 / 3. At IoU .5 one of 2 masks is right, one of 3 objects is found.
    """
    boxes = np.array([[0, 0, 2, 2], [2, 0, 4, 2]], float)
    found = boxes, np.array([0, 0]), [rle("##..", "##.."), rle("..#.", "....")]
    objects = [rle("##..", "##.."), rle("..##", "..##"), rle("..##", "..##")]
    truth = np.concatenate([boxes, boxes[1:]]), np.array([0, 0, 1]), objects
    quality = MaskQuality()
    quality.add(found, truth, np.zeros(3, bool))
    summary = quality.summary()
    assert summary["mean_iou"] == pytest.approx(1.25 / 3)
    assert summary["precision"] == pytest.approx(1 / 2)
    assert summary["recall"] == pytest.approx(1 / 3)
    assert summary["gt_known_localization"] == pytest.approx(1 / 2)  # of two cases
    assert MaskQuality().summary()["mean_iou"] is None


def test_px_ap_by_hand():
    """From the top: 1 right (P 1, R 1/2), .8 wrong (P 1/2), .6 right (P 2/3, R 1), 0 wrong.

    1 · 1/2 + 2/3 · 1/2 = 5/6.
    """
    assert px_ap(([[1, 0.8], [0.6, 0]], [[True, False], [True, False]])) == pytest.approx(5 / 6)


def test_px_ap_at_the_ends():
    """Objects on top give 1. A constant map puts all pixels at 0: their share is the precision."""
    truth = np.array([[True, True, False, False]])
    assert px_ap(([[0.9, 0.5, 0.2, 0]], truth)) == 1
    assert px_ap(([[3.0] * 4], truth)) == pytest.approx(1 / 2)


def test_px_ap_leaves_out_what_is_ignored():
    """The wrong pixel at .8 is ignored: 1. So is the right one at .6 in vain: objects count."""
    scores, truth = [[1, 0.8], [0.6, 0]], [[True, False], [True, False]]
    assert px_ap((scores, truth, [[False, True], [False, False]])) == 1
    assert px_ap((scores, truth, [[False, False], [True, False]])) == pytest.approx(5 / 6)


def test_px_ap_puts_the_pixels_of_all_maps_together():
    """Right at 1 and .5, wrong at 0 and 0; in the other map wrong at 1: P 1/2 at R 1/2, 2/3 at 1.

    That is 1/4 + 1/3, and not the mean of the maps.
    """
    first = [[1, 0.5, 0, 0]], [[True, True, False, False]]
    second = [[1, 0]], [[False, False]]
    assert px_ap(first, second) == pytest.approx(1 / 4 + 1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_px_ap_is_the_published_sum(seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((40, 50))
    scores = (scores - scores.min()) / (scores.max() - scores.min())
    truth = rng.random((40, 50)) < scores
    assert px_ap((scores, truth)) == pytest.approx(published(scores, truth), abs=1e-12)


def test_px_ap_resizes_map_and_truth():
    """A half of the image, of any size, is found at 1 by a map that is 1 there."""
    scores, truth = np.zeros((100, 60)), np.zeros((100, 60), bool)
    scores[:, :30], truth[:, :30] = 1, True
    pixels = PixelAveragePrecision()
    pixels.add(scores, truth)
    assert pixels.value() == pytest.approx(1, abs=0.005)
    assert pixels.maps == 1


def test_px_ap_refuses():
    pixels = PixelAveragePrecision()
    with pytest.raises(ValueError, match=r"of one shape, found \(2, 2\), \(2, 3\), \(2, 3\)"):
        pixels.add(np.zeros((2, 2)), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="NaN or infinite"):
        pixels.add(np.array([[np.nan, 1]]), np.zeros((1, 2), bool))
    with pytest.raises(ValueError, match="no pixel of an object"):
        pixels.value()
