"""The images of a store that a validation holds out, and those that are left to train on."""

import numpy as np
import pytest

from dap.datasets import PseudoBoxDataset
from dap.datasets.pseudo_box_dataset import evenly_held_out
from tests.support.stores import CATEGORIES, image, write_store


def test_held_out_images_are_the_middles_of_equal_stretches():
    """Of 40 images 4 may be held out, the middles of 10 each; one image gives itself."""
    assert evenly_held_out(np.arange(40) + 100, 1000).tolist() == [105, 115, 125, 135]
    assert evenly_held_out(np.arange(40), 2).tolist() == [10, 30]
    assert evenly_held_out(np.arange(7), 1000).tolist() == [3]
    assert evenly_held_out(np.array([5]), 3).tolist() == [5]
    assert evenly_held_out(np.arange(0), 3).tolist() == []


def test_parts_share_no_image_and_are_the_whole(tmp_path):
    """Of 60 images, 2 without boxes and 1 that failed, 57 may be held out: 5 of them are."""
    records = [image(f"{i}.jpg", 80, 100, [1, 1, 30, 30, i % 3, 0]) for i in range(60)]
    records[6], records[30] = image("6.jpg", 80, 100), image("30.jpg", 80, 100)
    records[18] = {"file_name": "18.jpg", "reason": "it is no image"}
    folder = write_store(tmp_path / "store", records, CATEGORIES, 4, {"thresholds": [0.2, 0.5]})

    def names(**options):
        made = PseudoBoxDataset(str(folder), data_prefix={"img": ""}, pipeline=[], **options)
        return [made.get_data_info(i)["img_path"] for i in range(len(made))]

    val = names(part="val", test_mode=True)
    assert val == names(part="val", test_mode=True)
    # The 5th, 17th, 28th, 39th and 51st (from zero) of those with boxes.
    assert val == ["5.jpg", "19.jpg", "31.jpg", "42.jpg", "54.jpg"]
    train = names(part="train")
    assert not set(train) & set(val)
    assert set(train) | set(val) == set(names())
    assert len(train) == 59 - 5
    assert len(names(part="val", held_out=2, test_mode=True)) == 2


@pytest.mark.parametrize("options", [{"part": "test"}, {"part": "val", "held_out": 0}])
def test_parts_out_of_range(tmp_path, options):
    with pytest.raises(ValueError, match=r"expected part 'train', 'val' or None, and held_out"):
        PseudoBoxDataset(str(tmp_path), data_prefix={"img": ""}, **options)
