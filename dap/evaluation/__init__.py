"""Metrics for MMEngine's evaluators."""

from .box_localization import BoxLocalization
from .detector_as_classifier import DetectorAsClassifier

__all__ = ["BoxLocalization", "DetectorAsClassifier"]
