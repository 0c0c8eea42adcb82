"""Initialise a detector from another detector, except for category-dependent layers."""

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

from .category_dependent import differing_in_class_count
from .checkpoint_names import CheckpointNames
from .loading import LoadAgain, reinitialises_itself, transfer
from .normalization import normalization_of_detector
from .refusals import refuse_backbone_alone, refuse_unmatched_parts
from .report import TransferReport, detector_parts, shorten
from .selection import Selection, dotted_names
from .starting_runner import starting_runner


@WEIGHT_INITIALIZERS.register_module()
class PretrainedDetector:
    """Load a detector's weights into a detector with other categories (DAP, Step 3 to Step 4).

    ::

        model = dict(init_cfg=dict(type='dap.PretrainedDetector', checkpoint='…/epoch_1.pth'), …)

    All parameters and buffers are loaded except those that depend on the categories, which keep
    their initialisation even if both detectors have the same number of categories. They are found
    by `category_dependent_parameters` from ``model_cfg``, else from the config in the checkpoint,
    else from the config of the Runner that initialises the detector.

    The whole detector is initialised first. ``Pretrained`` checkpoints of modules that get all
    their weights from this checkpoint are not read. DETR and similar detectors initialise their
    transformer again after ``init_cfg``; their weights are therefore loaded once more at the first
    ``state_dict()``, ``load_state_dict()`` or forward pass. An MMEngine Runner triggers this at
    once; other code should call ``state_dict()`` before it reads or changes parameters.

    If a Runner resumes a training, all weights come from the checkpoint of that training, and
    no other checkpoint is read.

    Args:
        checkpoint: File or URL in any format of `load_weights`.
        model_cfg: Config of the detector in the checkpoint: its ``model`` part, the whole config
            or its path. Only needed if neither the checkpoint nor a Runner has the config.
        prefix: Load only tensors whose names have this prefix, such as ``'student.'``, and remove
            it from the names.
        allow_missing: Modules that need not be in the checkpoint, like ``'roi_head.mask_head'``.
        parts: Modules to load, like ``('backbone', 'neck', 'rpn_head')``; None for all.
        exclude: Modules not to load, like ``'roi_head.bbox_head'``; also inside ``parts``.
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
            module: The detector, modified in place.

        Returns:
            Report of the transfer, which is also logged. Nothing is loaded if a training resumes.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If the file is not a checkpoint, is a classifier's, or has values that are
                not finite; if it has no weights for a whole module of the detector; if the layers
                that depend on the categories cannot be determined; or if the detector has no
                module that ``parts`` or ``exclude`` names.
        """
        self.selection.check(module.state_dict(), detector_parts(module), "the detector")
        runner = starting_runner(module)
        if runner and runner.resumes:
            return self._skip_for_resume(module, runner.resumes)
        weights, meta = self._read()
        leaves_out = self._leaves_out(meta)
        wanted = {n for n in module.state_dict() if not leaves_out(n)}
        needed = [
            part
            for part in detector_parts(module)
            if part != "backbone"
            and not self._may_miss(part)
            and any(name.startswith(f"{part}.") for name in wanted)
        ]
        refuse_backbone_alone(module, weights, self.checkpoint, self.prefix, needed)
        names = CheckpointNames(self.checkpoint, meta, self.model_cfg, self.prefix)
        known = names.category_dependent(module, weights, runner.detector if runner else None)
        dependent = differing_in_class_count(module, weights) if known is None else known
        _skip_replaced_checkpoints(module, weights, leaves_out, self.checkpoint)
        _initialise_children(module)
        report = transfer(module, weights, dependent, self.checkpoint, leaves_out)
        unmatched = [part for part in report.unmatched_parts if not self._may_miss(part)]
        refuse_unmatched_parts(module, weights, report, unmatched)
        if known is None and not dependent:
            raise ValueError(names.nothing_known())
        warnings = [*self._absences(report), *_other_normalization(module, names)]
        if known is None:
            warnings.insert(
                0, "no config found; layers whose shape shows another class count are not loaded"
            )
        if runner and runner.load_from:
            warnings.append(
                f"load_from={runner.load_from!r} is loaded after init_cfg and replaces these "
                "weights, including the layers of the categories if both have the same number. Set "
                "load_from=None, or leave init_cfg out"
            )
        _log(report, warnings)
        if hasattr(module, "_params_init_info"):  # called by init_weights
            if reinitialises_itself(module):
                LoadAgain(module, report.loaded)
            update_init_info(module, init_info=f"PretrainedDetector: load from {self.checkpoint}")
        return report

    def _skip_for_resume(self, module: nn.Module, resumed: str) -> TransferReport:
        """Initialise a detector without reading weights, since a resume replaces all of them."""
        for child in module.modules():
            if child is not module:
                _drop_pretrained(child)
        _initialise_children(module)
        print_log(
            f"PretrainedDetector: the training resumes from {resumed}, which has all weights; "
            f"{self.checkpoint} is not read",
            logger="current",
        )
        return TransferReport(self.checkpoint, detector_parts(module), loaded=())

    def _leaves_out(self, meta: Mapping[str, Any]) -> Callable[[str], bool]:
        """Return a test for names that the user excluded, here or in the extracted checkpoint."""
        extracted_without = {n.removeprefix(self.prefix) for n in meta.get(NOT_WANTED, ())}
        return lambda name: name in extracted_without or self.selection.leaves_out(name)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the weights that have the prefix, and the checkpoint's ``meta``."""
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
        """Describe the tensors that are missing in the checkpoint or in the detector."""
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


def _log(report: TransferReport, warnings: Sequence[str]) -> None:
    """Log the table, the names that were not loaded, and warnings."""
    dependent = shorten(report.category_dependent) or "none"
    lines = [
        f"PretrainedDetector: {report.checkpoint}",
        report.table(),
        f"re-initialised because category-dependent: {dependent}",
    ]
    if report.left_out:
        lines.append(f"left out on purpose: {shorten(report.left_out)}")
    print_log("\n".join(lines), logger="current")
    for warning in warnings:
        print_log(f"PretrainedDetector: {warning}", logger="current", level=logging.WARNING)


def _other_normalization(module: nn.Module, names: CheckpointNames) -> list[str]:
    """Warning if the checkpoint's detector was trained on images normalised in another way."""
    trained_on, current = names.normalization, normalization_of_detector(module)
    if trained_on is None or current is None or trained_on.is_like(current):
        return []
    return [
        f"{names.checkpoint} was trained on images of {trained_on}; this detector gets {current}. "
        "Use the data_preprocessor of the checkpoint's config"
    ]


def _initialise_children(module: nn.Module) -> None:
    for child in module.children():
        if isinstance(child, BaseModule) and not child.is_init:
            child.init_weights()


def _skip_replaced_checkpoints(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    leaves_out: Callable[[str], bool],
    source: str,
) -> None:
    """Do not read checkpoints of modules whose weights all come from this checkpoint."""
    not_loaded = [name for name in module.state_dict() if leaves_out(name)]
    for name, child in module.named_modules():
        prefix = f"{name}."
        if not name or not any(key.startswith(prefix) for key in weights):
            continue
        if any(key.startswith(prefix) for key in not_loaded):
            continue
        if skipped := _drop_pretrained(child):
            print_log(f"{name}: skip {skipped}, weights come from {source}", logger="current")


def _drop_pretrained(module: nn.Module) -> str:
    """Remove ``Pretrained`` from a module's ``init_cfg``, and return its checkpoints as text."""
    init_cfg = getattr(module, "init_cfg", None) or []
    init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
    pretrained = [cfg for cfg in init_cfgs if cfg.get("type") in ("Pretrained", PretrainedInit)]
    if pretrained:
        vars(module)["init_cfg"] = [cfg for cfg in init_cfgs if cfg not in pretrained] or None
    return ", ".join(str(cfg.get("checkpoint")) for cfg in pretrained)
