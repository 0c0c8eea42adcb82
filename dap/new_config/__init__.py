"""Write configs of Steps 3 and 4 for any detector of MMDetection, backbone and detection set."""

from .recipe import Recipe, new_configs

__all__ = ["Recipe", "new_configs"]
