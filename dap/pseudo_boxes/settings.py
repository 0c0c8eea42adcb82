"""What decides the pseudo boxes of a run, apart from the classifier and the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from dap.cam import NMS_IOU, RULES, THRESHOLDS, Rule, View, make_views


@dataclass(frozen=True)
class PseudoBoxSettings:
    """Settings of Step 2; the defaults are the paper's (section 4.1).

    Attributes:
        short_sides: Short sides of the views in pixels.
        flip: Whether each view is joined by its mirror image.
        thresholds: Values of τ, each in [0, 1).
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.
        rule: ``'paper'`` or ``'release'``, see :func:`dap.cam.boxes_from_cam`.

    Raises:
        ValueError: If a value is out of range.
    """

    short_sides: tuple[int, ...] = (288, 576)
    flip: bool = True
    thresholds: tuple[float, ...] = THRESHOLDS
    nms_iou: float | None = NMS_IOU
    rule: Rule = "paper"

    def __post_init__(self) -> None:
        for name in ("short_sides", "thresholds"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise ValueError(f"{name}: expected a list of numbers, found {values!r}")
        make_views(self.short_sides, self.flip)
        object.__setattr__(self, "short_sides", tuple(int(side) for side in self.short_sides))
        if not self.thresholds or not all(
            isinstance(tau, Real) and 0 <= tau < 1 for tau in self.thresholds
        ):
            raise ValueError(f"thresholds: expected values in [0, 1), found {self.thresholds}")
        object.__setattr__(self, "thresholds", tuple(float(tau) for tau in self.thresholds))
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds: expected each once, found {self.thresholds}")
        if self.nms_iou is not None and not (
            isinstance(self.nms_iou, Real) and 0 < self.nms_iou <= 1
        ):
            raise ValueError(f"nms_iou: expected a value in (0, 1] or None, found {self.nms_iou}")
        if self.rule not in RULES:
            raise ValueError(f"rule: expected one of {RULES}, found {self.rule!r}")

    @property
    def views(self) -> tuple[View, ...]:
        """The views an image is shown in."""
        return make_views(self.short_sides, self.flip)

    def as_json(self) -> dict[str, Any]:
        """The settings as they stand in what is written."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
