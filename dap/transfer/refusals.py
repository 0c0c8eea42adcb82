"""Errors for checkpoints that do not fit a detector, with advice."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .report import TransferReport, part_of, shorten


def refuse_backbone_alone(
    detector: nn.Module,
    weights: Mapping[str, Tensor],
    checkpoint: str,
    prefix: str,
    needed: Iterable[str],
) -> None:
    """Reject checkpoints of classifiers and backbones.

    Args:
        detector: The detector to initialise.
        weights: Tensors of the checkpoint by name.
        checkpoint: Source of the tensors.
        prefix: Prefix that was removed from the checkpoint's names to get those of ``weights``.
        needed: Parts of the detector, apart from its backbone, that require weights.

    Raises:
        ValueError: If other parts require weights, and the checkpoint is a classifier's or a
            backbone's.
    """
    needed = list(needed)
    backbone = getattr(detector, "backbone", None)
    if not needed or not isinstance(backbone, nn.Module):
        return
    tops = {name.split(".")[0] for name in weights}
    if {"backbone", "head"} <= tops <= {"backbone", "neck", "head", "data_preprocessor"}:
        kind, prefix = "a classifier's checkpoint", f"{prefix}backbone."
    elif backbone.state_dict().keys() & weights.keys():
        kind = "a checkpoint of a backbone alone"
    else:
        return
    option = f", prefix={prefix!r}" if prefix else ""
    raise ValueError(
        f"{checkpoint} is {kind}; dap.PretrainedDetector loads whole detectors, and this one needs "
        f"{shorten(needed)} too. Initialise the backbone from it: backbone=dict(init_cfg=dict("
        f"type='Pretrained', checkpoint={checkpoint!r}{option}))."
    )


def refuse_unmatched_parts(
    detector: nn.Module,
    weights: Mapping[str, Tensor],
    report: TransferReport,
    unmatched: Iterable[str],
) -> None:
    """Reject a checkpoint that has no weights for a whole module.

    Args:
        detector: The detector after the transfer.
        weights: Tensors of the checkpoint by name.
        report: Report of the transfer.
        unmatched: Parts without weights in the checkpoint, except those allowed to be missing.

    Raises:
        ValueError: If there are such parts.
    """
    parts = list(unmatched)
    if not parts:
        return
    shapes = {name: tuple(value.shape) for name, value in detector.state_dict().items()}
    wanted = {n: shapes[n] for n in report.missing if part_of(n, report.parts) in parts}
    stored = {name: tuple(value.shape) for name, value in weights.items()}
    tops = {part.split(".")[0] for part in parts}
    stored = {n: s for n, s in stored.items() if n.split(".")[0] in tops} or stored
    raise ValueError(
        f"{report.checkpoint} has nothing for {shorten(parts)}. The detector has "
        f"{_samples(wanted)}; the checkpoint has {_samples(stored)}. Use a "
        "checkpoint of the same architecture; if its names only have a prefix, pass prefix=…; "
        f"to train these modules from scratch, pass allow_missing={tuple(parts)}."
    )


def _samples(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Format the first names with their shapes."""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
