"""Metrics for MMEngine's evaluators, and the validation loop of Step 3."""

from .box_localization import BoxLocalization
from .detector_as_classifier import DetectorAsClassifier
from .held_out_val_loop import HeldOutValLoop

__all__ = ["BoxLocalization", "DetectorAsClassifier", "HeldOutValLoop"]
