"""Step 2 killed at random moments, against the undisturbed run."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))

import kills


@pytest.mark.parametrize("count", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_with_one_two_and_three_processes(tmp_path, count):
    """The script does a hundred: python tools/benchmarks/kills.py --kills 100."""
    done = kills.kill_until(tmp_path, kills=count, images=40, seed=0)
    assert done["kills"] == count
    assert done["compared"] == done["finished"] + 1
