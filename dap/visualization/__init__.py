"""Pictures of maps and boxes, learning curves, and comparisons of runs.

What needs mmpretrain is imported from its own module: :mod:`dap.visualization.inspection`,
:mod:`dap.visualization.box_pictures`.
"""

from .comparison import compare
from .curves import draw_curves, read_curve

__all__ = ["compare", "draw_curves", "read_curve"]
