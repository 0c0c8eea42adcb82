"""Compare trainings from MMEngine's logs: tables, learning curves, head start, warnings."""

from .comparison import compare
from .curves import draw_curves, read_curve

__all__ = ["compare", "draw_curves", "read_curve"]
