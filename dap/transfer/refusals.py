"""Errors for checkpoints that do not fit a detector, each with a cure."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from dap.transfer.report import TransferReport, part_of, shorten


def refuse_backbone_alone(
    detector: nn.Module, weights: Mapping[str, Tensor], checkpoint: str, needed: Iterable[str]
) -> None:
    """Say how a classifier's checkpoint is used, if this is one.

    Args:
        detector: The detector to initialise.
        weights: Tensors of the checkpoint by name.
        checkpoint: Where they come from.
        needed: Parts of the detector that want weights, apart from its backbone.

    Raises:
        ValueError: If other parts want weights, and the checkpoint is a classifier's or a
            backbone's.
    """
    needed = list(needed)
    backbone = getattr(detector, "backbone", None)
    if not needed or not isinstance(backbone, nn.Module):
        return
    tops = {name.split(".")[0] for name in weights}
    if {"backbone", "head"} <= tops <= {"backbone", "neck", "head", "data_preprocessor"}:
        kind, prefix = "a classifier's checkpoint", ", prefix='backbone.'"
    elif backbone.state_dict().keys() & weights.keys():
        kind, prefix = "a checkpoint of a backbone alone", ""
    else:
        return
    raise ValueError(
        f"{checkpoint} is {kind}; dap.PretrainedDetector loads whole detectors, and this one needs "
        f"{shorten(needed)} too. Initialise the backbone from it: backbone=dict(init_cfg=dict("
        f"type='Pretrained', checkpoint={checkpoint!r}{prefix}))."
    )


def refuse_unmatched_parts(
    detector: nn.Module,
    weights: Mapping[str, Tensor],
    report: TransferReport,
    unmatched: Iterable[str],
) -> None:
    """Refuse a checkpoint in which a whole module found nothing.

    Args:
        detector: The detector after the transfer.
        weights: Tensors of the checkpoint by name.
        report: What the transfer did.
        unmatched: Parts that found nothing, but for those that may.

    Raises:
        ValueError: If there are such parts.
    """
    parts = list(unmatched)
    if not parts:
        return
    shapes = {name: tuple(value.shape) for name, value in detector.state_dict().items()}
    wanted = {n: shapes[n] for n in report.missing if part_of(n, report.parts) in parts}
    near = {name: tuple(value.shape) for name, value in weights.items()}
    tops = {part.split(".")[0] for part in parts}
    near = {n: s for n, s in near.items() if n.split(".")[0] in tops} or near
    raise ValueError(
        f"{report.checkpoint} has nothing for {shorten(parts)}. The detector has "
        f"{_samples(wanted)}; the checkpoint has {_samples(near)}. Take a "
        "checkpoint of the same architecture; if its names only have a prefix, pass prefix=…; "
        f"if these modules shall train from scratch, pass allow_missing={tuple(parts)}."
    )


def _samples(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Write some names with their shapes."""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
