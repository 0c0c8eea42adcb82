"""Errors for checkpoints that do not fit a detector, with advice."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .report import TransferReport, part_of, shorten


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
        unmatched: Parts for which the checkpoint has no weights, without those that may miss.

    Raises:
        ValueError: If there are such parts; for checkpoints of classifiers and backbones it tells
            how to load them.
    """
    parts = list(unmatched)
    if not parts:
        return
    beside_backbone = [part for part in parts if part != "backbone"]
    if beside_backbone and (described := _backbone_alone(detector, weights)):
        kind, prefix = described
        raise ValueError(
            f"{report.checkpoint} is {kind}; dap.PretrainedDetector loads whole detectors, and "
            f"this one needs {shorten(beside_backbone)} too. Initialise the backbone from it: "
            f"backbone=dict(init_cfg=dict(type='Pretrained', checkpoint={report.checkpoint!r}"
            f"{prefix}))."
        )
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


def _backbone_alone(detector: nn.Module, weights: Mapping[str, Tensor]) -> tuple[str, str] | None:
    """Kind of a classifier's or a backbone's checkpoint, and the option that loads it."""
    tops = {name.split(".")[0] for name in weights}
    if {"backbone", "head"} <= tops <= {"backbone", "neck", "head", "data_preprocessor"}:
        return "a classifier's checkpoint", ", prefix='backbone.'"
    backbone = getattr(detector, "backbone", None)
    if isinstance(backbone, nn.Module) and backbone.state_dict().keys() & weights.keys():
        return "a checkpoint of a backbone alone", ""
    return None


def _samples(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Format the first names with their shapes."""
    return ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
