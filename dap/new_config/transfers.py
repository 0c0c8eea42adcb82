"""Predict from configs which weights move from a pre-training to a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from dap.transfer.category_dependent import Shape, category_dependent_parameters, state_shapes
from dap.transfer.model_configs import UNBUILDABLE, read_model_config
from dap.transfer.report import TransferReport


class Model(NamedTuple):
    """Parameters and buffers of a detector.

    Attributes:
        shapes: Name → shape.
        dependent: Names of those that depend on the categories.
    """

    shapes: dict[str, Shape]
    dependent: frozenset[str]


def build(path: Path) -> Model:
    """Build the detector of a config without allocating its weights.

    Raises:
        ValueError: If the detector cannot be built.
    """
    model, scope = read_model_config(Config.fromfile(path))
    try:
        return Model(state_shapes(model, scope), category_dependent_parameters(model, scope))
    except UNBUILDABLE as error:
        raise ValueError(
            f"{path}: the detector cannot be built ({type(error).__name__}: {error}). The config "
            "was written and can be edited"
        ) from error


def will_transfer(before: Model, after: Model, checkpoint: str) -> TransferReport:
    """Report which weights a fine-tuning will take from a pre-training.

    Args:
        before: Detector of the pre-training.
        after: Detector of the fine-tuning.
        checkpoint: Checkpoint that the pre-training will write.
    """
    dependent = before.dependent | after.dependent
    independent = [name for name in after.shapes if name not in dependent]
    loaded = [name for name in independent if before.shapes.get(name) == after.shapes[name]]
    missing = [name for name in independent if before.shapes.get(name) != after.shapes[name]]
    mismatched = {n: (before.shapes[n], after.shapes[n]) for n in missing if n in before.shapes}
    return TransferReport(
        checkpoint=checkpoint,
        parts=_parts(after.shapes),
        loaded=tuple(loaded),
        category_dependent=tuple(name for name in after.shapes if name in dependent),
        missing=tuple(missing),
        unexpected=tuple(sorted(before.shapes.keys() - after.shapes.keys() - dependent)),
        mismatched=mismatched,
    )


def _parts(shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules of the parameters: the first component of a name, or two of a RoI head."""
    names = (name.split(".") for name in shapes)
    return tuple(dict.fromkeys(".".join(n[: 2 if n[0] == "roi_head" else 1]) for n in names))
