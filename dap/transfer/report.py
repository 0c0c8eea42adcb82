"""Report of the weights that were loaded into a detector and those that were not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from .category_dependent import Shape

_SHOWN = 20  # names that `shorten` keeps


@dataclass(frozen=True)
class TransferReport:
    """Names of the tensors of a transfer, each in one group.

    The step counters of batch norms, which old checkpoints lack, are in ``loaded`` or in no group.

    Attributes:
        checkpoint: Source of the weights.
        parts: The detector's modules, see `detector_parts`.
        loaded: Loaded from the checkpoint.
        category_dependent: Not loaded because they depend on the categories.
        missing: Not loaded because the checkpoint has no tensor of that name and shape.
        unexpected: Only in the checkpoint.
        mismatched: Tensors of ``missing`` that the checkpoint has in another shape: the shape in
            the checkpoint and in the detector.
        left_out: Not loaded because the user excludes them (``parts``, ``exclude``), whether or not
            they depend on the categories.
        unmatched_parts: Parts of which no weight was loaded, or only tensors such as biases, which
            fit by chance.
    """

    checkpoint: str
    parts: tuple[str, ...]
    loaded: tuple[str, ...]
    category_dependent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unmatched_parts: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def table(self) -> str:
        """Format the counts per module as a table with a line for the total."""
        groups = {
            "loaded": self.loaded,
            "category-dependent": self.category_dependent,
            "missing": self.missing,
            "unexpected": self.unexpected,
        }
        if self.left_out:
            groups["left-out"] = self.left_out
        counts = [Counter(part_of(name, self.parts) for name in names) for names in groups.values()]
        parts = dict.fromkeys((*self.parts, *(part for count in counts for part in count)))
        rows = {part: [count[part] for count in counts] for part in parts}
        rows["total"] = [len(names) for names in groups.values()]
        width = max(map(len, (*parts, "module")))
        lines = ["  ".join((f"{'module':{width}}", *groups))]
        for label, numbers in rows.items():
            cells = (f"{n:{len(column)}}" for n, column in zip(numbers, groups, strict=True))
            lines.append("  ".join((f"{label:{width}}", *cells)))
        return "\n".join(lines)


def detector_parts(detector: nn.Module) -> tuple[str, ...]:
    """Return the modules of a detector that each require weights of a checkpoint.

    These are its children with parameters or buffers. Children that contain a backbone or heads
    (a RoI head, the student of a semi-supervised detector) are replaced by their own children,
    down to the stages of a cascade: ``backbone``, ``neck``, ``rpn_head``,
    ``roi_head.bbox_head.0`` …

    Args:
        detector: The detector.

    Returns:
        Names as in ``named_modules``.
    """
    return tuple(_parts(detector, prefix=""))


def _parts(module: nn.Module, prefix: str) -> list[str]:
    parts = []
    for name, child in module.named_children():
        inside = {name for name, _ in child.named_children()}
        nested = inside & {"backbone", "rpn_head", "bbox_head", "mask_head"}
        if nested or (prefix and isinstance(child, nn.ModuleList)):
            parts += _parts(child, f"{prefix}{name}.")
        elif child.state_dict():
            parts.append(prefix + name)
    return parts


def part_of(name: str, parts: Iterable[str]) -> str:
    """Return the part that a tensor belongs to, or the first component of its name."""
    inside = (part for part in parts if name.startswith(f"{part}."))
    return next(inside, name.split(".")[0])


def shorten(names: Iterable[str]) -> str:
    """Join names with commas; of more than 20, keep the first 20 and the number of the rest."""
    names = list(names)
    more = f" … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
