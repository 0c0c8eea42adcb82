"""Report which weights were loaded into a detector, and which were not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from dap.transfer.category_dependent import Shape

_COLUMNS = ("loaded", "category-dependent", "missing", "unexpected")
_AT_MOST = 20


@dataclass(frozen=True)
class TransferReport:
    """The names of a transfer's tensors, each in exactly one place.

    The step counters of batch norms, which old checkpoints lack, are only in ``loaded``, if at all.

    Attributes:
        checkpoint: Where the weights come from.
        parts: The detector's modules, see `detector_parts`.
        loaded: Taken from the checkpoint.
        category_dependent: Left at their initialisation because they depend on the categories.
        missing: Left at their initialisation because the checkpoint has nothing that fits.
        unexpected: In the checkpoint alone.
        mismatched: The missing that the checkpoint has in another shape, with its shape and the
            detector's.
        left_out: Left at their initialisation, or in the checkpoint, because the user does not want
            them (``parts``, ``exclude``), category-dependent or not.
        unmatched_parts: The parts that found nothing: no weight, or none but biases and the like,
            which fit by accident.
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
        """Count per module: a line each, and the sum."""
        groups = [self.loaded, self.category_dependent, self.missing, self.unexpected]
        columns = [*_COLUMNS]
        if self.left_out:
            groups.append(self.left_out)
            columns.append("left-out")
        counts = [self._per_part(names) for names in groups]
        rows = dict.fromkeys((*self.parts, *(part for count in counts for part in count)))
        width = max(map(len, (*rows, "module")))
        lines = ["  ".join((f"{'module':{width}}", *columns))]
        for label, numbers in (
            *((part, [count[part] for count in counts]) for part in rows),
            ("total", [len(names) for names in groups]),
        ):
            cells = (f"{n:{len(c)}}" for n, c in zip(numbers, columns, strict=True))
            lines.append("  ".join((f"{label:{width}}", *cells)))
        return "\n".join(lines)

    def _per_part(self, names: Iterable[str]) -> Counter[str]:
        """Count names per part, those outside of all parts under their first component."""
        return Counter(part_of(name, self.parts) for name in names)


def detector_parts(detector: nn.Module) -> tuple[str, ...]:
    """Name the modules of a detector of which each should find weights in a checkpoint.

    These are its children with parameters or buffers. What has a backbone or heads of its own
    (a RoI head, the student of a semi-supervised detector) is looked into, down to the stages of
    a cascade: ``backbone``, ``neck``, ``rpn_head``, ``roi_head.bbox_head.0`` …

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
    """Give the part that a tensor belongs to, or else the first component of its name."""
    inside = (part for part in parts if name.startswith(f"{part}."))
    return next(inside, name.split(".")[0])


def shorten(names: Iterable[str]) -> str:
    """Write names in one line, of many the first ones."""
    names = list(names)
    more = f" … and {len(names) - _AT_MOST} more" if len(names) > _AT_MOST else ""
    return ", ".join(names[:_AT_MOST]) + more
