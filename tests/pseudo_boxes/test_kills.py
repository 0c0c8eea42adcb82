"""Step 2 killed at random moments, against the undisturbed run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))

import kills


def test_ten_kills_with_one_two_and_three_processes(tmp_path):
    """The script does a hundred: python tools/benchmarks/kills.py --kills 100."""
    done = kills.kill_until(tmp_path, kills=10, images=40, seed=0)
    assert done["kills"] == 10
    assert done["compared"] == done["finished"] + 1
