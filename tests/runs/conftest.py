import pytest

from dap.testing import make_class_folders
from tests.support.planted_runs import run, tree
from tests.support.scope import mmpretrain_scope  # noqa: F401


@pytest.fixture
def root(tmp_path):
    """Twenty-one images: shards of 8, 8 and 5."""
    return make_class_folders(tmp_path / "images", 7)


@pytest.fixture
def written(root, tmp_path):
    """The files of the undisturbed run."""
    run(root, tmp_path / "undisturbed")
    return tree(tmp_path / "undisturbed")
