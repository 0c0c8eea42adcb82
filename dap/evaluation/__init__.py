"""Metrics for MMEngine's evaluators."""

from .detector_as_classifier import DetectorAsClassifier

__all__ = ["DetectorAsClassifier"]
