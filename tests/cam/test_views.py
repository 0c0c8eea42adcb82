"""Merging the maps of several views, with features whose maps are known."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dap.cam
from dap.cam import DEFAULT_VIEWS, View, linear_maps, make_views, map_over_image, resized_size

WEIGHT = torch.ones(1, 1)
LABEL = torch.tensor([0])


def multi_view_cam(image, features, weight, *args, **options):
    """The maps of a network with average pooling and a linear layer."""
    view_maps = partial(linear_maps, features, weight)
    return dap.cam.multi_view_cam(image, view_maps, *args, **options)


def cell_means(stride):
    """A 'network' whose feature is the mean brightness of each cell."""
    return lambda images: F.avg_pool2d(images, stride)


def test_default_views_are_the_papers():
    assert DEFAULT_VIEWS == (View(288, False), View(288, True), View(576, False), View(576, True))
    assert make_views([64], flip=False) == (View(64, False),)


@pytest.mark.parametrize("sides", [[], [0], [-3], [1.5]])
def test_bad_short_sides_are_refused(sides):
    with pytest.raises(ValueError, match="short_sides"):
        make_views(sides)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((300, 400), (288, 384)),
        ((500, 333), (432, 288)),
        ((100, 1000), (288, 2880)),
        ((1, 900), (3, 2880)),
    ],
)
def test_aspect_ratio_stays(size, expected):
    assert resized_size(size, 288) == expected


def test_one_view_at_its_own_size_is_the_map_of_its_cells():
    image = torch.arange(64 * 96, dtype=torch.float32).reshape(1, 64, 96)
    merged = multi_view_cam(image, cell_means(32), WEIGHT, LABEL, [View(64)])
    torch.testing.assert_close(merged.maps, F.avg_pool2d(image, 32))
    assert merged.cell_size == (32.0, 32.0)


def test_cell_size_is_in_pixels_of_the_original_image():
    image = torch.rand(1, 100, 250)
    merged = multi_view_cam(image, cell_means(32), WEIGHT, LABEL, [View(50)])
    assert merged.maps.shape == (1, 2, 4)  # 50 x 125, padded to 64 x 128
    assert merged.cell_size == (64.0, 64.0)


def test_padding_has_no_cells_of_its_own():
    """70 x 70 is padded to 96 x 96: 12 x 12 cells of 8 px, of which 9 x 9 show the image."""
    image = torch.full((1, 70, 70), 5.0)
    merged = multi_view_cam(image, cell_means(8), WEIGHT, LABEL, [View(70), View(70, True)])
    assert merged.maps.shape == (1, 9, 9)
    assert merged.maps.min() > 0  # the padding's cells would be 0
    torch.testing.assert_close(merged.maps[0, :8, :8], torch.full((8, 8), 5.0))
    released = multi_view_cam(image, cell_means(8), WEIGHT, LABEL, [View(70)], rule="release")
    assert released.maps.shape == (1, 12, 12)
    assert released.maps[0, -1, -1] == 0


def test_wild_padding_changes_nothing_under_the_paper_rule():
    """A network that goes mad on cells that are all padding (zeros) is not heard."""

    def mad_on_padding(images):
        means = F.avg_pool2d(images, 8)
        return torch.where(means == 0, torch.tensor(1e6), means)

    image = torch.rand(1, 70, 100) + 1
    sane = multi_view_cam(image, cell_means(8), WEIGHT, LABEL, make_views([70, 40]))
    mad = multi_view_cam(image, mad_on_padding, WEIGHT, LABEL, make_views([70, 40]))
    torch.testing.assert_close(mad.maps, sane.maps)


def test_mirror_lies_cell_on_cell():
    """On a symmetric network the mirror adds nothing, also with padding on one side."""
    image = torch.rand(1, 70, 100)
    plain = multi_view_cam(image, cell_means(32), WEIGHT, LABEL, [View(70)])
    both = multi_view_cam(image, cell_means(32), WEIGHT, LABEL, make_views([70]))
    torch.testing.assert_close(both.maps, plain.maps)


def test_mirror_undoes_a_sideways_bias():
    def shifted(images):
        return F.avg_pool2d(images, 32).roll(1, dims=-1)

    image = torch.zeros(1, 32, 160)
    image[..., 64:96] = 1  # the middle cell of five
    merged = multi_view_cam(image, shifted, WEIGHT, LABEL, make_views([32]))
    torch.testing.assert_close(merged.maps[0, 0], torch.tensor([0, 0.5, 0, 0.5, 0]))


def test_scales_meet_at_their_place_in_the_image():
    """A linear ramp has the same value at the same place at each scale, so the mean is the ramp."""
    image = torch.arange(192.0).expand(1, 96, 192)
    merged = multi_view_cam(image, cell_means(8), WEIGHT, LABEL, [View(96), View(48)])
    fine = multi_view_cam(image, cell_means(8), WEIGHT, LABEL, [View(96)])
    assert merged.maps.shape == fine.maps.shape == (1, 12, 24)
    torch.testing.assert_close(merged.maps[..., 2:-2], fine.maps[..., 2:-2], rtol=0, atol=0.15)


def test_scales_whose_grids_end_differently_stay_aligned():
    """100 x 100 at 44 px ends inside its sixth cell of 8 px; a bright spot must not move."""
    image = torch.zeros(1, 100, 100)
    image[:, 40:48, 72:80] = 1
    merged = multi_view_cam(image, cell_means(4), WEIGHT, LABEL, [View(100), View(44)])
    y, x = divmod(int(merged.maps[0].argmax()), merged.maps.shape[-1])
    assert 40 <= (y + 0.5) * merged.cell_size[0] <= 48
    assert 72 <= (x + 0.5) * merged.cell_size[1] <= 80


def test_views_weigh_the_same_and_their_order_does_not_matter():
    image = torch.rand(1, 64, 64)
    views = [View(64), View(32), View(32, True)]
    merged = multi_view_cam(image, cell_means(16), WEIGHT, LABEL, views)
    again = multi_view_cam(image, cell_means(16), WEIGHT, LABEL, views[::-1])
    torch.testing.assert_close(merged.maps, again.maps)
    large = multi_view_cam(image, cell_means(16), WEIGHT, LABEL, [View(64)]).maps
    small = multi_view_cam(image, cell_means(16), WEIGHT, LABEL, [View(32)]).maps
    upsampled = F.interpolate(small[None], (4, 4), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(merged.maps, (large + 2 * upsampled) / 3)


def test_release_normalises_each_scale_and_upsamples_by_neighbours():
    image = torch.zeros(1, 64, 64)
    image[:, :32, :32] = 1
    merged = multi_view_cam(
        image, cell_means(16), WEIGHT, LABEL, make_views([64, 32]), rule="release"
    )
    expected = torch.zeros(4, 4)
    expected[:2, :2] = 1
    torch.testing.assert_close(merged.maps[0], expected, atol=0.3, rtol=0)
    assert merged.maps.max() <= 1
    assert merged.cell_size == (16.0, 16.0)


def test_several_labels_share_the_features():
    image = torch.rand(2, 64, 64)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    merged = multi_view_cam(image, cell_means(32), weight, torch.tensor([0, 2, 1]), [View(64)])
    pooled = F.avg_pool2d(image, 32)
    torch.testing.assert_close(merged.maps, torch.stack([pooled[0], pooled.sum(0), pooled[1]]))


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_no_label_gives_no_map(rule):
    labels = torch.tensor([], dtype=torch.long)
    merged = multi_view_cam(
        torch.rand(1, 64, 64), cell_means(16), WEIGHT, labels, make_views([64, 32]), rule=rule
    )
    assert merged.maps.shape == (0, 4, 4)
    assert merged.cell_size == (16.0, 16.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(2, 3, 4, 4)}, "image: "),
        ({"views": []}, "views: "),
        ({"rule": "other"}, "rule: "),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"image": torch.zeros(1, 32, 32), "views": [View(32)], "rule": "paper", **change}
    with pytest.raises(ValueError, match=message):
        multi_view_cam(features=cell_means(32), weight=WEIGHT, labels=LABEL, **arguments)


class TestMapOverImage:
    def test_each_cell_lies_at_its_place(self):
        """Two cells of 10 x 20 px: values at their centres, linear between, level beyond."""
        found = map_over_image(np.array([[1.0, 3.0]]), (10.0, 20.0), (10, 40))
        assert found.shape == (10, 40)
        np.testing.assert_allclose(found[4, [0, 9, 19, 20, 30, 39]],
                                   [0, 0, 0.475, 0.525, 1, 1], atol=0.03)  # fmt: skip
        np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-6)

    def test_padding_is_cut_off_before_the_range_is_taken(self):
        """A grid of 2 x 2 cells of 8 px over an image of 8 x 16: the lower cells lie below it."""
        found = map_over_image(np.array([[0.0, 1.0], [9.0, 9.0]]), (8.0, 8.0), (4, 16))
        assert found.shape == (4, 16)
        assert (found.min(), found.max()) == (0, 1)
        assert found[0, 0] == 0
        assert found[0, 15] == 1

    def test_pixels_beyond_the_grid_take_the_nearest_value(self):
        found = map_over_image(np.array([[0.0, 1.0]]), (4.0, 4.0), (6, 10))
        assert found.shape == (6, 10)
        assert found[5, 9] == 1
        assert found[5, 0] == 0

    def test_constant_and_broken_maps(self):
        assert not map_over_image(np.full((2, 3), 5.0), (4.0, 4.0), (8, 12)).any()
        with pytest.raises(ValueError, match="expected a finite map"):
            map_over_image(np.array([[np.nan, 1.0]]), (4.0, 4.0), (4, 8))
