import sys
from pathlib import Path

from tests.support.scope import mmpretrain_scope  # noqa: F401

sys.path.append(str(Path(__file__).parents[2] / "tools" / "benchmarks"))  # the table
