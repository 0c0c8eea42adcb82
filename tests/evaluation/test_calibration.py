"""One factor on all thresholds, from a few images with true boxes."""

import json

import numpy as np
import pytest
import torch

from dap.cam import MergedCam
from dap.evaluation.calibration import FACTORS, calibrate, choose, figures_of
from dap.evaluation.ground_truth import read_ground_truth
from dap.pseudo_boxes.stored_maps import StoredMap
from tests.support.stores import image_record, store_of

ONE = FACTORS.index(1.0)
GOOD, BAD = (1, 1, 0.8, 1), (2, 1, 0.2, 1)  # boxes, objects, found, fitting


def counts(*rows):
    """Counts in which the first factor has the first of each pair, factor 1 the second."""
    array = np.tile(np.array(BAD, float), (len(rows), len(FACTORS), 1))
    for of_image, (first, one) in zip(array, rows, strict=True):
        of_image[0], of_image[ONE] = first, one
    return array


def test_figures_by_hand():
    """Four boxes of which three fit, .5 of two objects: 25 % and 75 %, harmonic mean 37.5 %."""
    np.testing.assert_allclose(figures_of(np.array([4, 2, 0.5, 3])), [4, 25, 75, 37.5])
    np.testing.assert_allclose(figures_of(np.zeros(4)), 0)


def test_factor_must_be_better_for_sure():
    assert choose(counts(*[(GOOD, BAD)] * 10)) == 0
    assert choose(counts(*[(BAD, GOOD)] * 10)) == ONE
    mixed = [(GOOD, BAD)] * 6 + [(BAD, GOOD)] * 5
    assert figures_of(counts(*mixed).sum(axis=0))[:, 3].argmax() == 0
    assert choose(counts(*mixed)) == ONE


def wide_map():
    """A plateau of 60 % of the peak around the object, which is the peak: 40 x 40 pixels."""
    values = torch.zeros(1, 20, 20)
    values[:, 3:17, 3:17], values[:, 6:14, 6:14] = 0.6, 1.0
    return MergedCam(values, (5.0, 5.0))


@pytest.fixture
def truth(tmp_path):
    content = {
        "images": [{"id": i, "file_name": f"{i}.JPEG"} for i in range(6)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [30, 30, 40, 40], "area": 1600,
             "iscrowd": 0} for i in range(6)
        ],
        "categories": [{"id": 1, "name": "n3"}],
    }  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return read_ground_truth(tmp_path / "truth.json")


def maps_of(items):
    for name, labels in items:
        yield StoredMap(name, (100, 100), {label: wide_map() for label in labels}, None)


def run_of(tmp_path, **settings):
    return store_of(tmp_path / "boxes", [image_record(f"{i}.JPEG") for i in range(6)], **settings)


def test_wide_maps_want_a_larger_factor(tmp_path, truth):
    """Otsu's threshold is below the plateau, .3; only far above it the object is alone."""
    store = run_of(tmp_path, rule="extent", thresholds=(1.0, 1.25))
    found = calibrate(store, truth, maps_of)
    assert found.images == 6
    assert FACTORS[found.chosen] > 1
    np.testing.assert_allclose(found.thresholds[found.chosen] / FACTORS[found.chosen], [1, 1.25])
    assert found.figures[found.chosen, 1:].min() > 85
    assert found.figures[ONE, 3] < 50
    assert calibrate(store, truth, maps_of, most=2).images == 2


def test_other_rules_and_truth_without_classes_are_refused(tmp_path, truth):
    with pytest.raises(ValueError, match="expected a run by rule='extent', found 'paper'"):
        calibrate(run_of(tmp_path), truth, maps_of)
    (tmp_path / "localization.txt").write_text("0.JPEG,30,30,70,70\n")
    store = store_of(tmp_path / "other", [image_record("0.JPEG")], rule="extent", thresholds=(1.0,))
    with pytest.raises(ValueError, match="has no classes"):
        calibrate(store, read_ground_truth(tmp_path / "localization.txt"), maps_of)
    images = [image_record("x/9.JPEG")]
    unlike = store_of(tmp_path / "unlike", images, rule="extent", thresholds=(1.0,))
    with pytest.raises(ValueError, match="no image"):
        calibrate(unlike, truth, maps_of)
