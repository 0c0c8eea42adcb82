"""Initialise a detector from another detector, its category-dependent layers excepted."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn

from dap.checkpoint import NOT_WANTED, load_weights, require_finite, select
from dap.registry import WEIGHT_INITIALIZERS
from dap.transfer.category_dependent import differing_in_class_count
from dap.transfer.checkpoint_names import CheckpointNames
from dap.transfer.loading import LoadAgain, reinitialises_itself, transfer
from dap.transfer.normalization import normalization_of_detector
from dap.transfer.refusals import refuse_backbone_alone, refuse_unmatched_parts
from dap.transfer.report import TransferReport, detector_parts, shorten
from dap.transfer.selection import Selection, dotted_names
from dap.transfer.starting_runner import starting_runner


@WEIGHT_INITIALIZERS.register_module()
class PretrainedDetector:
    """Load a detector's weights into a detector of other categories (DAP, Step 3 to Step 4).

    ::

        model = dict(init_cfg=dict(type='dap.PretrainedDetector', checkpoint='…/epoch_1.pth'), …)

    All parameters and buffers move but those that depend on the categories, which keep their
    fresh initialisation even when both detectors happen to have equally many. Which these are is
    found by construction (`category_dependent_parameters`) from ``model_cfg``, else from the
    config in the checkpoint, else from that of the Runner which initialises the detector.

    The whole detector is initialised first, without the ``Pretrained`` checkpoints of those of
    its modules that get all their weights from here. DETR and its kind initialise their
    transformer once more after ``init_cfg``: they get the weights again at the first
    ``state_dict()``, ``load_state_dict()`` or forward pass. An MMEngine Runner does that at once;
    other code calls ``state_dict()`` before it looks at or changes single parameters.

    A Runner that resumes a training takes all weights from the checkpoint of that training; then
    no other checkpoint is read, this one included.

    Args:
        checkpoint: File or URL, anything that `load_weights` reads.
        model_cfg: Config of the detector in the checkpoint: its ``model`` part, the whole config
            or the path of it. Only needed if the checkpoint has none and no Runner's config tells.
        prefix: Take only tensors whose names begin so, and cut that off: ``'student.'``.
        allow_missing: Modules that need not be in the checkpoint, like ``'roi_head.mask_head'``.
        parts: Modules that move, like ``('backbone', 'neck', 'rpn_head')``; None for all.
        exclude: Modules that do not, like ``'roi_head.bbox_head'``; also inside of ``parts``.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str],
        model_cfg: str | Config | Mapping[str, Any] | None = None,
        prefix: str | None = None,
        allow_missing: str | Sequence[str] = (),
        parts: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] = (),
    ) -> None:
        self.checkpoint = os.fspath(checkpoint)
        self.model_cfg = model_cfg
        self.prefix = prefix or ""
        self.allow_missing = dotted_names(allow_missing)
        self.selection = Selection.of(parts, exclude)

    def __call__(self, module: nn.Module) -> TransferReport:
        """Initialise a detector and load the weights.

        Args:
            module: The detector, changed in place.

        Returns:
            What moved and what did not; it is logged too. Nothing moves where a training resumes.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If the file is no checkpoint, or a classifier's, or has values that are
                not finite; if a whole module of the detector found nothing in it; if nothing
                tells which layers depend on the categories; or if the detector has no module that
                ``parts`` or ``exclude`` names.
        """
        self.selection.check(module.state_dict(), detector_parts(module), "the detector")
        runner = starting_runner(module)
        if runner and runner.resumes:
            return self._leave_to_resume(module, runner.resumes)
        weights, meta = self._read()
        leaves_out = self._leaves_out(meta)
        wanted = {n for n in module.state_dict() if not leaves_out(n)}
        needed = (p for p in self._needed(module) if any(n.startswith(f"{p}.") for n in wanted))
        refuse_backbone_alone(module, weights, self.checkpoint, needed)
        names = CheckpointNames(self.checkpoint, meta, self.model_cfg, self.prefix)
        known = names.category_dependent(module, weights, runner.detector if runner else None)
        dependent = differing_in_class_count(module, weights) if known is None else known
        _skip_own_checkpoints(module, weights, leaves_out, self.checkpoint)
        _initialise_children(module)
        report = transfer(module, weights, dependent, self.checkpoint, leaves_out)
        unmatched = [part for part in report.unmatched_parts if not self._may_miss(part)]
        refuse_unmatched_parts(module, weights, report, unmatched)
        if known is None and not dependent:
            raise ValueError(names.nothing_known())
        warnings = [
            *(
                ["no config found; category-dependent is what shows a class count"]
                * (known is None)
            ),
            *self._absences(report),
            *_other_normalization(module, names),
            *([_loaded_over(runner.load_from)] if runner and runner.load_from else []),
        ]
        self._log(report, warnings)
        if hasattr(module, "_params_init_info"):  # called by init_weights
            if reinitialises_itself(module):
                LoadAgain(module, report.loaded)
            update_init_info(module, init_info=f"PretrainedDetector: load from {self.checkpoint}")
        return report

    def _leave_to_resume(self, module: nn.Module, resumed: str) -> TransferReport:
        """Initialise a detector of which all weights will be replaced, without reading any."""
        for child in module.modules():
            if child is not module:
                _drop_pretrained(child)
        _initialise_children(module)
        print_log(
            f"PretrainedDetector: the training goes on from {resumed}, which has all weights; "
            f"{self.checkpoint} is not read",
            logger="current",
        )
        return TransferReport(self.checkpoint, detector_parts(module), loaded=())

    def _leaves_out(self, meta: Mapping[str, Any]) -> Callable[[str], bool]:
        """Say which names stay behind: by the user's wish here, or when they were extracted."""
        noted = {n.removeprefix(self.prefix) for n in meta.get(NOT_WANTED, ())}
        return lambda name: name in noted or self.selection.leaves_out(name)

    def _needed(self, module: nn.Module) -> list[str]:
        """Name the parts beside the backbone that must find weights."""
        return [p for p in detector_parts(module) if p != "backbone" and not self._may_miss(p)]

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the weights below the prefix, and the checkpoint's ``meta``."""
        weights, meta = load_weights(self.checkpoint)
        inside = select(weights, lambda name: name.startswith(self.prefix), prefix=self.prefix)
        if not inside:
            raise ValueError(
                f"{self.checkpoint} has no name that begins with prefix={self.prefix!r}; it has "
                f"{', '.join(list(weights)[:3])} … Pass the prefix of the detector, or none."
            )
        require_finite(inside, self.checkpoint)
        return inside, meta

    def _may_miss(self, part: str) -> bool:
        return any(part == name or part.startswith(f"{name}.") for name in self.allow_missing)

    def _absences(self, report: TransferReport) -> list[str]:
        """Say by name what was expected in the checkpoint or in the detector, and is not there."""
        lines = []
        if report.mismatched:
            shapes = (f"{n} {s} in place of {t}" for n, (s, t) in report.mismatched.items())
            lines.append(f"missing, since of another shape: {shorten(shapes)}")
        absent = [n for n in report.missing if n not in report.mismatched and not self._may_miss(n)]
        if absent:
            lines.append(f"missing: {shorten(absent)}")
        if report.unexpected:
            lines.append(f"unexpected: {shorten(report.unexpected)}")
        return lines

    def _log(self, report: TransferReport, warnings: Sequence[str]) -> None:
        """Log the table, then the names that did not come from the checkpoint."""
        lines = [
            f"PretrainedDetector: {report.checkpoint}",
            report.table(),
            "re-initialised because category-dependent: "
            f"{shorten(report.category_dependent) or 'none'}",
        ]
        if report.left_out:
            lines.append(f"left out on purpose: {shorten(report.left_out)}")
        print_log("\n".join(lines), logger="current")
        for warning in warnings:
            print_log(f"PretrainedDetector: {warning}", logger="current", level=logging.WARNING)


def _other_normalization(module: nn.Module, names: CheckpointNames) -> list[str]:
    """Warn if the checkpoint's detector was trained on images normalised in another way."""
    before, now = names.normalization, normalization_of_detector(module)
    if before is None or now is None or before.is_like(now):
        return []
    return [
        f"{names.checkpoint} was trained on images of {before}; this detector gets {now}. Give it "
        "the data_preprocessor of the checkpoint's config"
    ]


def _loaded_over(load_from: str) -> str:
    return (
        f"load_from={load_from!r} is loaded after init_cfg and replaces these weights, the layers "
        "of the categories included where they are equally many. Set load_from=None, or leave "
        "init_cfg out"
    )


def _initialise_children(module: nn.Module) -> None:
    for child in module.children():
        if isinstance(child, BaseModule) and not child.is_init:
            child.init_weights()


def _skip_own_checkpoints(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    leaves_out: Callable[[str], bool],
    source: str,
) -> None:
    """Spare modules the reading of a checkpoint of their own where this one replaces it."""
    kept = [name for name in module.state_dict() if leaves_out(name)]
    for name, child in module.named_modules():
        inside = f"{name}."
        if not name or not any(key.startswith(inside) for key in weights):
            continue
        if any(key.startswith(inside) for key in kept):  # it needs its own for a part of it
            continue
        if skipped := _drop_pretrained(child):
            print_log(f"{name}: skip {skipped}, weights come from {source}", logger="current")


def _drop_pretrained(module: nn.Module) -> str:
    """Take ``Pretrained`` out of a module's ``init_cfg``, and name its checkpoints."""
    init_cfg = getattr(module, "init_cfg", None) or []
    init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
    pretrained = [cfg for cfg in init_cfgs if cfg.get("type") in ("Pretrained", PretrainedInit)]
    if pretrained:
        vars(module)["init_cfg"] = [cfg for cfg in init_cfgs if cfg not in pretrained] or None
    return ", ".join(str(cfg.get("checkpoint")) for cfg in pretrained)
