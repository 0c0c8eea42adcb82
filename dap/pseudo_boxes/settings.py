"""What decides the pseudo boxes of a run, apart from the classifier and the images."""

from __future__ import annotations

import os
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
class Execution:
    """How a run is carried out.

    None of it changes the boxes, but for ``tf32`` and ``batch_size``, which change the rounding.

    Attributes:
        num_workers: Processes that read images, per rank. 0 reads them in the rank itself, which
            a decoder that crashes or hangs then ends. Defaults to :func:`default_workers`.
        batch_size: Images of 4:3 at the largest scale that are computed at a time on the device,
            each with its mirror image; of smaller images more, of larger ones fewer. 1: one image
            at a time, whatever its size. Defaults to 32 on a GPU and 1 on a CPU, which gains
            nothing by more.
        max_bad_fraction: Share of images that cannot be used, of the last 1000 or of all of them,
            above which a run stops: then it is not the images.
        retry_failed: Whether images that an earlier start could not use are tried again.
        read_timeout: Seconds after which reading an image counts as hung.
        shard_size: Images per shard; by default by the number of images. It stays with a store.
        keep_going: Whether a run goes on when its first boxes are those of a wrong normalisation
            or of mixed-up classes.
        coco: Whether to write ``annotations.json``. Without it, tools/convert_annotations.py
            writes it later.
        tf32: Whether a GPU may compute float32 in TF32.

    Raises:
        ValueError: If a value is out of range.
    """

    num_workers: int | None = None
    batch_size: int | None = None
    max_bad_fraction: float = 0.5
    retry_failed: bool = False
    read_timeout: float = 120.0
    shard_size: int | None = None
    keep_going: bool = False
    coco: bool = True
    tf32: bool = True

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 0), ("batch_size", 1), ("shard_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, found {value}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"max_bad_fraction: expected a value in [0, 1], found {self.max_bad_fraction}"
            )
        if not self.read_timeout > 0:
            raise ValueError(f"read_timeout: expected seconds, found {self.read_timeout}")


def default_workers(on_gpu: bool, local_ranks: int) -> int:
    """Number of processes that read images, per rank, by the cores of this machine.

    Args:
        on_gpu: Whether the rank computes on a GPU. On a CPU, a forward takes a hundred times as
            long as reading an image, so that few readers are enough.
        local_ranks: Number of ranks on this machine, which share its cores.

    Returns:
        At least 1, at most 16.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    per_rank = (cores or 1) // max(1, local_ranks)
    return min(16, max(1, per_rank - 1 if on_gpu else per_rank // 8))


@dataclass(frozen=True)
class PseudoBoxSettings:
    """Settings of Step 2; views and NMS are by default the paper's (section 4.1), the rule is ours.

    Attributes:
        short_sides: Short sides of the views in pixels.
        flip: Whether each view is joined by its mirror image.
        thresholds: Under ``'extent'`` positive multiples of each map's own threshold by Otsu;
            under the other rules values of τ, each in [0, 1). Defaults to the rule's own,
            see :func:`dap.cam.default_thresholds`.
        nms_iou: IoU threshold of the merging NMS in (0, 1]; None for no NMS.
        rule: ``'extent'``, the paper's ``'paper'``, or the official release's ``'release'``, see
            :func:`dap.cam.boxes_from_cam`.
        autocast: ``'bf16'`` or ``'fp16'`` for the network in half precision; None for float32.
        map_method: ``'exact'``, ``'ag-cam'``, ``'grad-cam'``, or ``'gradient'`` for one of these
            two; None for the first of them that the classifier has.
        masks: Whether each box has the mask of its component, see
            :func:`dap.cam.box_candidates`.

    Raises:
        ValueError: If a value is out of range.
    """

    short_sides: tuple[int, ...] = (288, 576)
    flip: bool = True
    thresholds: tuple[float, ...] = None  # type: ignore[assignment]  # becomes the rule's own
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
        """The settings of the run that wrote a store.

        Raises:
            ValueError: If the store was not made by Step 2, but of a COCO file.
        """
        # Earlier versions had no choice of map_method; masks stand there if there are any.
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
        """The views an image is shown in."""
        return make_views(self.short_sides, self.flip)

    def as_json(self) -> dict[str, Any]:
        """The settings as they stand in what is written; ``masks`` only if there are any."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.masks:
            del fields["masks"]
        return fields

    def rule_line(self) -> str:
        """The rule, how it reads its thresholds, and the other choice, in one line for the log."""
        names = ", ".join(threshold_name(tau, self.rule) for tau in self.thresholds)
        default = PseudoBoxSettings.rule
        if self.rule == default:
            other = "the default. rule='paper' (--rule paper) is the paper's, for ResNet-50"
        else:
            other = f"not the default, which is rule={default!r} (--rule {default})"
        return f"boxes are taken by rule={self.rule!r} at {names}: {other}"


def with_changes(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of :class:`PseudoBoxSettings` with some of them changed.

    A changed rule that reads thresholds in another way than the one before takes its own default
    thresholds, unless thresholds are among the changes: values of τ are no multiples of Otsu's
    threshold.

    Args:
        fields: Fields as they are given in a config.
        changes: Fields that replace them.

    Raises:
        ValueError: If a rule is unknown.
    """
    changed = {**fields, **changes}
    before, after = (each.get("rule", PseudoBoxSettings.rule) for each in (fields, changed))
    if "thresholds" not in changes and multiplies_otsu(before) != multiplies_otsu(after):
        changed["thresholds"] = None
    return changed
