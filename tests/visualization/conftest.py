"""The planted classifier's place."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pseudo_boxes"))  # the planted classifier
