"""Variants of maps, and their figures on two images."""

import numpy as np
import torch


def test_percentile_in_place_of_the_minimum(project):
    """The median of 0, 1, 2, 3 is 1.5; each map has its own percentile."""
    maps = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[4.0, 4.0], [4.0, 8.0]]])
    found = project["map_variants"].clipped(maps, 50)
    assert found.tolist() == [[[1.5, 1.5], [2.0, 3.0]], [[4.0, 4.0], [4.0, 8.0]]]
    assert torch.equal(project["map_variants"].clipped(maps, 0), maps)


def test_variants_on_two_images(project):
    """A flat map has no box; a blob with the extent of the object matches it at every IoU."""
    variants = project["map_variants"]
    blob = torch.zeros(1, 1, 8, 8)
    blob[..., 2:6, 2:6] = 1
    truth = np.array([[64.0, 64, 192, 192]])
    cases = []
    for maps in (blob, torch.zeros(1, 1, 8, 8)):
        both = maps.repeat(1, 2, 1, 1)
        scales = [variants.cam.ScaleMaps(both, (32.0, 32.0), (256, 256))]
        cases.append(variants.Case((256, 256), truth, {32: scales}))
    columns = variants.columns_of(cases, variants.Variant("paper"), "paper")
    assert columns["boxes"].tolist() == [1, 0]
    assert columns["recall"].tolist() == [1, 0]
    found = dict(
        zip(variants.FIGURES, variants.figures(columns, np.ones((1, 2)))[:, 0], strict=True)
    )
    assert found["GT-known"] == 50
    assert found["precision"] == 100
    whole = variants.columns_of(cases, variants.Variant("whole", fixed_side=1), "paper")
    assert whole["recall"].tolist() == [0, 0]  # IoU with an object of a quarter of the area: .25
