"""Configs of Steps 3 and 4 for any detector of MMDetection, any backbone, any detection set."""

from .recipe import Recipe, new_configs

__all__ = ["Recipe", "new_configs"]
