"""MMEngine hooks, each a thin caller of the rooms above."""

from .pseudo_box_hook import PseudoBoxHook

__all__ = ["PseudoBoxHook"]
