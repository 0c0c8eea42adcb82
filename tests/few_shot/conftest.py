"""A small COCO set."""

import pytest

from tests.support.few_shot import write_coco


@pytest.fixture
def pets(tmp_path):
    """A COCO file: 12 images with a cat, 15 with a dog, 3 of them with both."""
    images = {i: ["cat"] for i in range(1, 10)}
    images |= {i: ["cat", "dog"] for i in range(10, 13)}
    images |= {i: ["dog"] for i in range(13, 25)}
    return write_coco(tmp_path / "pets.json", images)
