"""Subsets of detection sets with k images per class."""

from .subsets import draw_shots, make_few_shot_subsets

__all__ = ["draw_shots", "make_few_shot_subsets"]
