"""Load weights into a detector, report what was loaded, and keep it from being overwritten."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from dap.checkpoint import select
from dap.transfer.category_dependent import Shape
from dap.transfer.report import TransferReport, detector_parts


def transfer(
    detector: nn.Module,
    weights: dict[str, Tensor],
    category_dependent: Collection[str],
    checkpoint: str = "the given weights",
    leaves_out: Callable[[str], bool] = lambda name: False,
) -> TransferReport:
    """Load all weights that fit, but those that depend on the categories or are left out.

    ``load_state_dict`` does it, so that what modules know of older names holds here too.

    Args:
        detector: Changed in place.
        weights: Tensors by name.
        category_dependent: Names to leave as they are.
        checkpoint: Where the weights come from, for the report.
        leaves_out: Whether a name stays as it is by the user's wish; this goes first.

    Returns:
        What moved and what did not.
    """
    state = detector.state_dict()
    target = {name: tuple(value.shape) for name, value in state.items()}
    left_out = {name for name in {**target, **weights} if leaves_out(name)}
    dependent = frozenset(category_dependent) - left_out
    kept = dependent | left_out
    mismatched = {
        name: (tuple(value.shape), target[name])
        for name, value in weights.items()
        if name in target and name not in kept and tuple(value.shape) != target[name]
    }
    loadable = select(weights, lambda name: name not in kept and name not in mismatched)
    before = {name: state[name].clone() for name in target if name in left_out}
    absent, unexpected = detector.load_state_dict(loadable, strict=False)
    for name, value in before.items():  # modules rename what they are given
        state[name].copy_(value)
    # torch supplies the step counters of batch norms that an old checkpoint lacks
    supplied = {n for n in target if n.endswith(".num_batches_tracked") and n not in loadable}
    empty = {*absent, *supplied, *left_out}
    loaded = [name for name in target if name not in empty]
    wanted = {n: s for n, s in target.items() if n not in kept and n not in supplied}
    parts = detector_parts(detector)
    return TransferReport(
        checkpoint=checkpoint,
        parts=parts,
        loaded=tuple(loaded),
        category_dependent=tuple(name for name in target if name in dependent),
        missing=tuple(name for name in wanted if name in empty),
        unexpected=tuple(sorted({*unexpected, *(dependent & weights.keys() - target.keys())})),
        mismatched=mismatched,
        left_out=(
            *(name for name in target if name in left_out),
            *sorted(left_out - target.keys()),
        ),
        unmatched_parts=tuple(part for part in parts if _found_nothing(part, wanted, loaded)),
    )


def _found_nothing(part: str, wanted: Mapping[str, Shape], loaded: Collection[str]) -> bool:
    """Say whether no weight of a part was loaded; biases count only where it has nothing else."""
    inside = [name for name in wanted if name.startswith(f"{part}.")]
    weighty = [name for name in inside if len(wanted[name]) > 1] or inside
    return bool(weighty) and not set(weighty) & set(loaded)


def reinitialises_itself(detector: nn.Module) -> bool:
    """Say whether ``init_weights`` goes on to change weights after ``init_cfg``.

    A detector with an ``init_weights`` of its own does (DETR, Deformable DETR, DINO …), and one
    with a child that MMEngine cannot tell to be initialised.

    Args:
        detector: A detector of which the children are initialised.

    Returns:
        Whether it does, or may do.
    """
    init_weights: Callable[..., Any] | None = getattr(type(detector), "init_weights", None)
    return init_weights is not BaseModule.init_weights or any(
        hasattr(child, "init_weights") and not getattr(child, "is_init", False)
        for child in detector.children()
    )


class LoadAgain:
    """Puts the present weights of a module in once more when it is first used, then does nothing.

    The first use is ``state_dict()``, ``load_state_dict()`` or a forward pass. The hooks stay:
    torch lets none remove itself while it runs through them.

    Args:
        module: The module.
        names: Which of its parameters and buffers, as in its ``state_dict``.
    """

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        state = module.state_dict()
        self._weights = {name: state[name].clone() for name in names}
        module.register_state_dict_pre_hook(self)
        module.register_load_state_dict_pre_hook(self)
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, *_: object) -> None:
        """Load once."""
        weights, self._weights = self._weights, {}
        if weights:
            module.load_state_dict(weights, strict=False)
