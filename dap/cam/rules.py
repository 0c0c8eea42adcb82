"""The rules that turn maps into boxes, and the meaning and defaults of their thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Rule = Literal["paper", "release", "extent"]
RULES: tuple[Rule, ...] = ("paper", "release", "extent")
THRESHOLDS = (0.2, 0.3, 0.4, 0.5)
"""The paper's values of τ, for a map in [0, 1]: the default of ``'paper'`` and ``'release'``."""
OTSU_MULTIPLES = (0.55, 0.8, 1.0, 1.25)
"""Multiples of the map's Otsu threshold: the default of ``'extent'``."""


def default_thresholds(rule: Rule) -> tuple[float, ...]:
    """Return the default thresholds of a rule.

    Raises:
        ValueError: If the rule is unknown.
    """
    return OTSU_MULTIPLES if multiplies_otsu(rule) else THRESHOLDS


def multiplies_otsu(rule: Rule) -> bool:
    """Whether the thresholds of a rule are multiples of Otsu's threshold, not values of the map.

    Raises:
        ValueError: If the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {RULES}, found {rule!r}")
    return rule == "extent"


def checked_thresholds(thresholds: Sequence[float] | None, rule: Rule) -> np.ndarray:
    """Check the thresholds of a rule and convert them to an array.

    Args:
        thresholds: Values of τ in [0, 1) for ``'paper'`` and ``'release'``; positive multiples of
            Otsu's threshold for ``'extent'``; None for the rule's defaults.
        rule: One of :data:`RULES`.

    Returns:
        float64, shape (T,), T at least 1.

    Raises:
        ValueError: If the rule is unknown, there is no threshold, or one is out of range.
    """
    otsu = multiplies_otsu(rule)
    values = default_thresholds(rule) if thresholds is None else thresholds
    taus = np.asarray(values, dtype=np.float64)
    in_range = ((taus > 0) & (taus < np.inf)) if otsu else ((taus >= 0) & (taus < 1))
    if taus.ndim != 1 or taus.size == 0 or not in_range.all():
        expected = "positive multiples of Otsu's threshold" if otsu else "values in [0, 1)"
        raise ValueError(
            f"thresholds: expected {expected} under rule={rule!r}, found {thresholds!r}"
        )
    return taus


def threshold_name(threshold: float, rule: str | None) -> str:
    """Format a threshold for tables and pictures: ``τ 0.3``, or ``0.3 x Otsu``."""
    return f"{threshold:g} x Otsu" if rule == "extent" else f"τ {threshold}"
