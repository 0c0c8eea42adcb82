"""Pictures of maps and boxes, and learning curves."""

from .curves import draw_curves, read_curve
from .gallery import draw_gallery

__all__ = ["draw_curves", "draw_gallery", "read_curve"]
