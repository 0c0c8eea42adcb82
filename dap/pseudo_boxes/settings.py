"""Settings of Step 2: what decides the boxes, apart from the classifier and the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import torch

from dap.cam import (
    NMS_IOU,
    Rule,
    View,
    checked_thresholds,
    make_views,
    multiplies_otsu,
    threshold_name,
)
from dap.classifiers.methods import METHODS
from dap.store.reader import PseudoBoxStore

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PseudoBoxSettings:
    """Settings of Step 2. Views and NMS default to the paper's (section 4.1), the rule does not.

    Attributes:
        short_sides: Short sides of the views in pixels.
        flip: Whether the mirror image of each view is used too.
        thresholds: With the rule ``'extent'``, positive multiples of the Otsu threshold of each
            map; with the other rules, values of τ in [0, 1). Defaults to those of the rule, see
            :func:`dap.cam.default_thresholds`.
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.
        rule: ``'extent'``, ``'paper'`` (as in the paper) or ``'release'`` (as in the official
            release), see :func:`dap.cam.boxes_from_cam`.
        autocast: ``'bf16'`` or ``'fp16'`` to run the network in half precision; None for float32.
        map_method: ``'exact'``, ``'ag-cam'``, ``'grad-cam'``, or ``'gradient'`` for either of the
            last two; None for the first method in this order that the classifier supports.
        masks: Whether to store a mask with each box, see :func:`dap.cam.box_candidates`.

    Raises:
        ValueError: If a value is out of range.
    """

    short_sides: tuple[int, ...] = (288, 576)
    flip: bool = True
    thresholds: tuple[float, ...] = None  # type: ignore[assignment]  # replaced by those of the rule
    nms_iou: float | None = NMS_IOU
    rule: Rule = "extent"
    autocast: str | None = None
    map_method: str | None = None
    masks: bool = False

    def __post_init__(self) -> None:
        for name in ("short_sides", "thresholds"):
            values = getattr(self, name)
            if name == "thresholds" and values is None:
                continue
            if not isinstance(values, Sequence) or isinstance(values, str):
                raise ValueError(f"{name}: expected a list of numbers, found {values!r}")
            if not all(isinstance(value, Real) for value in values):
                raise ValueError(f"{name}: expected numbers, found {values!r}")
        make_views(self.short_sides, self.flip)
        object.__setattr__(self, "short_sides", tuple(int(side) for side in self.short_sides))
        taus = checked_thresholds(self.thresholds, self.rule)
        object.__setattr__(self, "thresholds", tuple(taus.tolist()))
        if len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds: expected each once, found {self.thresholds}")
        if self.nms_iou is not None and not (
            isinstance(self.nms_iou, Real) and 0 < self.nms_iou <= 1
        ):
            raise ValueError(f"nms_iou: expected a value in (0, 1] or None, found {self.nms_iou}")
        if self.autocast is not None and self.autocast not in AUTOCAST:
            raise ValueError(
                f"autocast: expected one of {tuple(AUTOCAST)} or None, found {self.autocast!r}"
            )
        if self.map_method not in (None, *METHODS):
            raise ValueError(
                f"map_method: expected one of {METHODS} or None, found {self.map_method!r}"
            )
        if not isinstance(self.masks, bool):
            raise ValueError(f"masks: expected True or False, found {self.masks!r}")

    @classmethod
    def from_store(cls, store: PseudoBoxStore) -> PseudoBoxSettings:
        """Return the settings of the run that wrote a store.

        Raises:
            ValueError: If the store was not written by Step 2, but converted from a COCO file.
        """
        # Manifests of earlier versions lack map_method, those of runs without masks lack masks.
        fields: dict[str, Any] = {"map_method": None, "masks": False, **store.manifest["settings"]}
        if fields.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(
                f"{store.folder} is no run of Step 2: its settings are "
                f"{sorted(store.manifest['settings'])}. Give the folder of a run "
                "that tools/generate_pseudo_boxes.py has written"
            )
        return cls(**fields)

    @property
    def views(self) -> tuple[View, ...]:
        """The views of an image that are passed to the classifier."""
        return make_views(self.short_sides, self.flip)

    def as_json(self) -> dict[str, Any]:
        """Return the settings as they are written to files; ``masks`` only if True."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.masks:
            del fields["masks"]
        return fields

    def rule_line(self) -> str:
        """Describe rule and thresholds, and the alternative rule, in one line for the log."""
        names = ", ".join(threshold_name(tau, self.rule) for tau in self.thresholds)
        default = PseudoBoxSettings.rule
        if self.rule == default:
            other = "the default. rule='paper' (--rule paper) is the paper's, for ResNet-50"
        else:
            other = f"not the default, which is rule={default!r} (--rule {default})"
        return f"boxes are taken by rule={self.rule!r} at {names}: {other}"


def with_changes(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace some fields of :class:`PseudoBoxSettings`.

    Thresholds are values of τ with some rules, and multiples of the Otsu threshold with others. If
    the rule changes from one kind to the other, and ``changes`` has no thresholds, they become the
    defaults of the new rule.

    Args:
        fields: Fields of a config.
        changes: New values of some fields.

    Raises:
        ValueError: If a rule is unknown.
    """
    changed = {**fields, **changes}
    before, after = (each.get("rule", PseudoBoxSettings.rule) for each in (fields, changed))
    if "thresholds" not in changes and multiplies_otsu(before) != multiplies_otsu(after):
        changed["thresholds"] = None
    return changed
