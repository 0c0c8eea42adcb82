"""Initialise a detector from another detector, its category-dependent layers excepted."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn

from dap.checkpoint import LEFT_OUT, load_weights, require_finite, select
from dap.registry import WEIGHT_INITIALIZERS
from dap.transfer.category_dependent import category_dependent_parameters, differing_in_class_count
from dap.transfer.loading import LoadAgain, reinitialises_itself, transfer
from dap.transfer.model_configs import (
    UNBUILDABLE,
    find_live_config,
    parse_model_config,
    read_model_config,
)
from dap.transfer.report import TransferReport, detector_parts, part_of, shorten


@WEIGHT_INITIALIZERS.register_module()
class PretrainedDetector:
    """Load a detector's weights into a detector of other categories (DAP, Step 3 to Step 4).

    ::

        model = dict(init_cfg=dict(type='dap.PretrainedDetector', checkpoint='…/epoch_1.pth'), …)

    All parameters and buffers move but those that depend on the categories, which keep their
    fresh initialisation even when both detectors happen to have equally many. Which these are is
    found by construction (`category_dependent_parameters`) from ``model_cfg``, else from the
    config in the checkpoint, else from the detector's own config if that is still alive.

    The whole detector is initialised first, without the ``Pretrained`` checkpoints of those of
    its modules that get their weights from here. DETR and its kind initialise their transformer
    once more after ``init_cfg``: they get the weights again at the first ``state_dict()``,
    ``load_state_dict()`` or forward pass. An MMEngine Runner does that at once; other code calls
    ``state_dict()`` before it looks at or changes single parameters.

    Args:
        checkpoint: File or URL, anything that `load_weights` reads.
        model_cfg: Config of the detector in the checkpoint: its ``model`` part, the whole config
            or the path of it. Only needed if the checkpoint has none and the detector's own
            cannot be found.
        prefix: Take only tensors whose names begin so, and cut that off: ``'student.'``.
        allow_missing: Modules that need not be in the checkpoint, like ``'roi_head.mask_head'``.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        model_cfg: str | Config | Mapping[str, Any] | None = None,
        prefix: str | None = None,
        allow_missing: str | Sequence[str] = (),
    ) -> None:
        self.checkpoint = os.fspath(checkpoint)
        self.model_cfg = model_cfg
        self.prefix = prefix or ""
        allow_missing = [allow_missing] if isinstance(allow_missing, str) else allow_missing
        self.allow_missing = tuple(name.rstrip(".") for name in allow_missing)

    def __call__(self, module: nn.Module) -> TransferReport:
        """Initialise a detector and load the weights.

        Args:
            module: The detector, changed in place.

        Returns:
            What moved and what did not; it is logged too.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If the file is no checkpoint, or a classifier's, or has values that are
                not finite; if a whole module of the detector found nothing in it; or if nothing
                tells which layers depend on the categories.
        """
        weights, meta = self._read()
        self._refuse_backbone_alone(module, weights)
        known = self._category_dependent(module, meta)
        dependent = differing_in_class_count(module, weights) if known is None else known
        _skip_own_checkpoints(module, weights, self.checkpoint)
        for child in module.children():
            if isinstance(child, BaseModule) and not child.is_init:
                child.init_weights()
        report = transfer(module, weights, dependent, self.checkpoint)
        self._refuse_unmatched_parts(module, weights, report)
        if known is None and not dependent:
            raise ValueError(self._nothing_known())
        self._log(report, guessed=known is None)
        if hasattr(module, "_params_init_info"):  # called by init_weights
            if reinitialises_itself(module):
                LoadAgain(module, report.loaded)
            update_init_info(module, init_info=f"PretrainedDetector: load from {self.checkpoint}")
        return report

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the weights below the prefix, and the checkpoint's ``meta``."""
        weights, meta = load_weights(self.checkpoint)
        inside = select(weights, lambda name: name.startswith(self.prefix), cut=self.prefix)
        if not inside:
            raise ValueError(
                f"{self.checkpoint} has no name that begins with prefix={self.prefix!r}; it has "
                f"{', '.join(list(weights)[:3])} … Pass the prefix of the detector, or none."
            )
        require_finite(inside, self.checkpoint)
        return inside, meta

    def _category_dependent(
        self, module: nn.Module, meta: Mapping[str, Any]
    ) -> frozenset[str] | None:
        """Find the names by construction, or None if there is no config to construct from."""
        if self.model_cfg is not None:
            names = category_dependent_parameters(*read_model_config(self.model_cfg))
            return self._below_prefix(names)
        known = self._from_checkpoint(meta)
        if known is None and (live := find_live_config(module)):
            known = category_dependent_parameters(*live)
        return known

    def _from_checkpoint(self, meta: Mapping[str, Any]) -> frozenset[str] | None:
        """Find the names in what the checkpoint says of itself."""
        if LEFT_OUT in meta:
            return self._below_prefix(meta[LEFT_OUT])
        config = parse_model_config(meta["cfg"]) if isinstance(meta.get("cfg"), str) else None
        if config is None:
            return None
        try:
            return self._below_prefix(category_dependent_parameters(*config))
        except UNBUILDABLE as error:
            print_log(
                f"{self.checkpoint}: the detector of its config cannot be built here "
                f"({type(error).__name__}: {error}). Pass model_cfg=… if this one's layers differ.",
                logger="current",
                level=logging.WARNING,
            )
            return None

    def _below_prefix(self, names: Sequence[str] | frozenset[str]) -> frozenset[str]:
        inside = (name for name in names if name.startswith(self.prefix))
        return frozenset(name.removeprefix(self.prefix) for name in inside)

    def _may_miss(self, part: str) -> bool:
        return any(part == name or part.startswith(f"{name}.") for name in self.allow_missing)

    def _refuse_backbone_alone(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Say how a classifier's checkpoint is used, if this is one."""
        needed = [p for p in detector_parts(module) if p != "backbone" and not self._may_miss(p)]
        backbone = getattr(module, "backbone", None)
        if not needed or not isinstance(backbone, nn.Module):
            return
        tops = {name.split(".")[0] for name in weights}
        if {"backbone", "head"} <= tops <= {"backbone", "neck", "head", "data_preprocessor"}:
            found, prefix = "a classifier's checkpoint", ", prefix='backbone.'"
        elif backbone.state_dict().keys() & weights.keys():
            found, prefix = "a checkpoint of a backbone alone", ""
        else:
            return
        raise ValueError(
            f"{self.checkpoint} is {found}; dap.PretrainedDetector loads whole detectors, and this "
            f"one needs {shorten(needed)} too. Initialise the backbone from it: backbone=dict("
            f"init_cfg=dict(type='Pretrained', checkpoint={self.checkpoint!r}{prefix}))."
        )

    def _refuse_unmatched_parts(
        self, module: nn.Module, weights: Mapping[str, Tensor], report: TransferReport
    ) -> None:
        """Refuse a checkpoint in which a whole module found nothing."""
        parts = [part for part in report.unmatched_parts if not self._may_miss(part)]
        if not parts:
            return
        shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        wanted = {n: shapes[n] for n in report.missing if part_of(n, report.parts) in parts}
        near = {name: tuple(value.shape) for name, value in weights.items()}
        tops = {part.split(".")[0] for part in parts}
        near = {n: s for n, s in near.items() if n.split(".")[0] in tops} or near
        raise ValueError(
            f"{self.checkpoint} has nothing for {shorten(parts)}. The detector has "
            f"{_samples(wanted)}; the checkpoint has {_samples(near)}. Take a "
            "checkpoint of the same architecture; if its names only have a prefix, pass prefix=…; "
            f"if these modules shall train from scratch, pass allow_missing={tuple(parts)}."
        )

    def _nothing_known(self) -> str:
        return (
            f"{self.checkpoint} has no config, the detector's own is not alive, and no shape shows "
            "another class count: nothing tells which layers depend on the categories. Pass "
            "init_cfg=dict(type='dap.PretrainedDetector', checkpoint=…, model_cfg=CONFIG) with the "
            "config of the checkpoint's detector, or take those layers out once: "
            "python tools/extract_detector.py CHECKPOINT OUT --config CONFIG."
        )

    def _log(self, report: TransferReport, guessed: bool) -> None:
        """Log the table, then by name what did not come from the checkpoint."""
        dependent = shorten(report.category_dependent) or "none"
        print_log(
            f"PretrainedDetector: {report.checkpoint}\n{report.table()}\n"
            f"re-initialised because category-dependent: {dependent}",
            logger="current",
        )
        warnings = []
        if guessed:
            warnings.append("no config found; category-dependent is what shows a class count")
        if report.mismatched:
            shapes = (f"{n} {s} in place of {t}" for n, (s, t) in report.mismatched.items())
            warnings.append(f"missing, since of another shape: {shorten(shapes)}")
        absent = [n for n in report.missing if n not in report.mismatched and not self._may_miss(n)]
        if absent:
            warnings.append(f"missing: {shorten(absent)}")
        if report.unexpected:
            warnings.append(f"unexpected: {shorten(report.unexpected)}")
        for warning in warnings:
            print_log(f"PretrainedDetector: {warning}", logger="current", level=logging.WARNING)


def _samples(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Write some names with their shapes."""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])


def _skip_own_checkpoints(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Spare modules the reading of a checkpoint of their own where this one replaces it."""
    for name, child in module.named_modules():
        init_cfg = getattr(child, "init_cfg", None)
        if not name or not init_cfg or not any(key.startswith(f"{name}.") for key in weights):
            continue
        init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
        own = [cfg for cfg in init_cfgs if cfg.get("type") in ("Pretrained", PretrainedInit)]
        if own:
            child.init_cfg = [cfg for cfg in init_cfgs if cfg not in own] or None
            skipped = ", ".join(str(cfg.get("checkpoint")) for cfg in own)
            print_log(f"{name}: skip {skipped}, weights come from {source}", logger="current")
