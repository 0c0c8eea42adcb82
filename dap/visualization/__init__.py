"""Pictures of maps and boxes, learning curves, and comparisons of runs.

Modules that need mmpretrain are imported by their own names: :mod:`dap.visualization.inspection`
and :mod:`dap.visualization.box_pictures`.
"""

from .comparison import compare
from .curves import draw_curves, read_curve

__all__ = ["compare", "draw_curves", "read_curve"]
