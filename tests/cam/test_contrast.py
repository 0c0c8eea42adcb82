"""Maps joined with the contrast of the features: by hand, with padding, mirrored, in batches."""

from functools import partial

import numpy as np
import pytest
import torch

from dap.cam import batch_maps, linear_maps, multi_view_cam
from dap.cam.contrast import centred_directions, contrasted_maps, feature_contrast, spread_maps


def test_contrast_by_hand():
    """Features (3, 0), (0, 4), (0, 0), (1, 0) in a row have the mean (1, 1)."""
    features = torch.tensor([[[3.0, 0, 0, 1]], [[0, 4.0, 0, 0]]])
    inside = torch.ones(1, 4, dtype=torch.bool)
    expected = [[5**0.5, 10**0.5, 2**0.5, 1]]
    torch.testing.assert_close(feature_contrast(features, inside), torch.tensor(expected))
    inside[0, 3] = False  # then the mean of the others is (1, 4/3)
    found = feature_contrast(features, inside)[0]
    by_hand = [(4 + 16 / 9) ** 0.5, (1 + 64 / 9) ** 0.5, (1 + 16 / 9) ** 0.5, 4 / 3]
    torch.testing.assert_close(found, torch.tensor(by_hand))


def test_map_spreads_to_cells_with_alike_features_by_hand():
    """Directions x x y y less their mean: (.5, -.5) twice, (-.5, .5) twice. Map less mean: .75 -.25
    -.25 -.25, the sum over cells of map times direction (.5, -.5): .5 .5 -.5 -.5, then 1 1 -1 -1.
    """
    features = torch.tensor([[[2.0, 5, 0, 0]], [[0, 0, 3.0, 1]]])
    inside = torch.ones(1, 4, dtype=torch.bool)
    directions = centred_directions(features, inside)
    torch.testing.assert_close(directions[:, 0], torch.tensor([0.5, -0.5]))
    maps = torch.tensor([[1.0, 0, 0, 0]])
    spread = spread_maps(maps, directions, inside)
    torch.testing.assert_close(spread, torch.tensor([[1.0, 1, -1, -1]]))


def test_many_steps_lead_to_the_first_principal_component(monkeypatch):
    torch.manual_seed(0)
    features, maps = torch.rand(6, 4, 5, dtype=torch.float64), torch.rand(4, 5, dtype=torch.float64)
    inside = torch.ones(4, 5, dtype=torch.bool)
    directions = centred_directions(features, inside)
    monkeypatch.setattr("dap.cam.contrast.SPREAD_STEPS", 40)
    spread = spread_maps(maps, directions, inside).flatten()
    component = torch.linalg.svd(directions, full_matrices=False).Vh[0]
    cosine = (spread @ component) / spread.norm()
    torch.testing.assert_close(cosine.abs(), torch.ones_like(cosine))


def test_map_stays_where_all_features_have_one_direction():
    maps = torch.tensor([[0.3, 1, 0, 0.2]])
    inside = torch.ones(1, 4, dtype=torch.bool)
    features = torch.tensor([1.0, 7, 3, 0.1]) * torch.tensor([[[0.6]], [[0.7]]])
    spread = spread_maps(maps, centred_directions(features, inside), inside)
    assert torch.equal(spread, maps)


def test_joined_map_by_hand():
    """Map 0 2 4 in [0, 1] is 0 .5 1. Features 0 3 9 have the mean 4, contrasts 4 1 5: .75 0 1.
    Their directions 0 1 1 less the mean are -2/3 1/3 1/3, to which the map spreads: 0 1 1.
    """
    maps = torch.tensor([0.0, 2, 4]).view(1, 1, 1, 3)
    features = torch.tensor([0.0, 3, 9]).view(1, 1, 1, 1, 3)
    joined = contrasted_maps(maps, features, [(1, 3)], [1], [False])
    torch.testing.assert_close(joined.flatten(), torch.tensor([0.0, 0, 1]))
    maps = torch.tensor([4.0, 2, 0]).view(1, 1, 1, 3)
    joined = contrasted_maps(maps, features, [(1, 3)], [1], [False])
    torch.testing.assert_close(joined.flatten(), torch.tensor([0.75 ** (1 / 3), 0, 0]))


def test_padding_takes_no_part():
    torch.manual_seed(0)
    maps, features = torch.randn(2, 3, 4, 5), torch.randn(2, 2, 6, 4, 5)
    sizes, counts, flips = [(4, 5), (3, 2)], [1, 2], [False, True]
    joined = contrasted_maps(maps, features, sizes, counts, flips)
    alone = contrasted_maps(
        maps[:, 1:, :3, :2],
        torch.stack([features[0, 1:, :, :3, :2], features[1, 1:, :, :3, 3:]]),
        [(3, 2)],
        [2],
        flips,
    )
    torch.testing.assert_close(joined[:, 1:, :3, :2], alone)
    assert joined[0, 0].min() == 0
    assert joined.max() <= 1


def test_constant_map_stays_constant_and_what_is_not_finite_is_seen():
    torch.manual_seed(0)
    features = torch.randn(1, 1, 6, 4, 5)
    noise = 7 + 1e-6 * torch.randn(1, 1, 4, 5)
    assert (contrasted_maps(noise, features, [(4, 5)], [1], [False]) == 0).all()
    for bad in (torch.nan, torch.inf):
        maps = torch.randn(1, 1, 4, 5)
        maps[0, 0, 1, 2] = bad
        assert not contrasted_maps(maps, features, [(4, 5)], [1], [False]).isfinite().all()


def some_features(images):
    """Eight channels at stride 16 of images of three channels, by a fixed random projection."""
    torch.manual_seed(1)
    filters = torch.randn(8, 3, 16, 16)
    return torch.nn.functional.conv2d(images, filters, stride=16).relu()


@pytest.mark.parametrize("labels", [[[1], [2], [0]], [[0, 2], [], [1]]])
def test_a_batch_is_as_each_alone_and_maps_of_the_paper_stay(labels):
    torch.manual_seed(2)
    images = [torch.rand(3, *hw) * 255 for hw in ((64, 90), (70, 94), (64, 96))]
    weight, labels = torch.randn(3, 8), [torch.tensor(own, dtype=torch.long) for own in labels]
    flips, view_maps = [False, True], partial(linear_maps, some_features, weight)
    together = batch_maps(images, 64, flips, view_maps, labels, rule="extent")
    start = 0
    for image, own in zip(images, labels, strict=True):
        alone = batch_maps([image], 64, flips, view_maps, [own], rule="extent")
        torch.testing.assert_close(together.maps[:, start : start + len(own)], alone.maps)
        start += len(own)
    paper, release = (
        batch_maps(images, 64, flips, view_maps, labels, rule=rule).maps
        for rule in ("paper", "release")
    )
    assert torch.equal(paper, release)
    assert not torch.equal(paper, together.maps)


def test_mirrored_image_gives_the_mirrored_map():
    torch.manual_seed(3)
    image = torch.rand(3, 64, 96) * 255
    view_maps = partial(linear_maps, some_features, torch.randn(3, 8))
    found, mirrored = (
        multi_view_cam(x, view_maps, torch.tensor([1]), rule="extent")
        for x in (image, image.flip(2))
    )
    np.testing.assert_allclose(found.maps, mirrored.maps.flip(-1), atol=1e-4)
    assert 0 <= found.maps.min() < found.maps.max() <= 1
