"""Load weights into a detector, and report what was loaded."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from dap.checkpoint import select

from .category_dependent import Shape
from .report import TransferReport, detector_parts


def transfer(
    detector: nn.Module,
    weights: dict[str, Tensor],
    category_dependent: Collection[str],
    checkpoint: str = "the given weights",
    leaves_out: Callable[[str], bool] = lambda name: False,
) -> TransferReport:
    """Load all weights that fit, except those that depend on the categories or are left out.

    Weights are loaded by ``load_state_dict``, so that modules can convert names of old checkpoints.

    Args:
        detector: The detector, modified in place.
        weights: Tensors by name.
        category_dependent: Names not to load.
        checkpoint: Source of the weights, for the report.
        leaves_out: Function that returns whether the user excludes a name; it takes precedence.

    Returns:
        Report of the transfer.
    """
    state = detector.state_dict()
    target = {name: tuple(value.shape) for name, value in state.items()}
    left_out = {name for name in {**target, **weights} if leaves_out(name)}
    dependent = frozenset(category_dependent) - left_out
    excluded = dependent | left_out
    mismatched = {
        name: (tuple(value.shape), target[name])
        for name, value in weights.items()
        if name in target and name not in excluded and tuple(value.shape) != target[name]
    }
    loadable = select(weights, lambda name: name not in excluded and name not in mismatched)
    before = {name: state[name].clone() for name in target if name in left_out}
    absent, unexpected = detector.load_state_dict(loadable, strict=False)
    for name, value in before.items():  # modules may have renamed a loaded tensor to this name
        state[name].copy_(value)
    # torch adds the step counters of batch norms that an old checkpoint lacks
    added = {n for n in target if n.endswith(".num_batches_tracked") and n not in loadable}
    not_loaded = {*absent, *added, *left_out}
    loaded = [name for name in target if name not in not_loaded]
    wanted = {n: s for n, s in target.items() if n not in excluded and n not in added}
    parts = detector_parts(detector)
    return TransferReport(
        checkpoint=checkpoint,
        parts=parts,
        loaded=tuple(loaded),
        category_dependent=tuple(name for name in target if name in dependent),
        missing=tuple(name for name in wanted if name in not_loaded),
        unexpected=tuple(sorted({*unexpected, *(dependent & weights.keys() - target.keys())})),
        mismatched=mismatched,
        left_out=(
            *(name for name in target if name in left_out),
            *sorted(left_out - target.keys()),
        ),
        unmatched_parts=tuple(part for part in parts if _is_unmatched(part, wanted, loaded)),
    )


def _is_unmatched(part: str, wanted: Mapping[str, Shape], loaded: Collection[str]) -> bool:
    """Whether no weight of a part was loaded; vectors count only if it has no other tensors."""
    inside = [name for name in wanted if name.startswith(f"{part}.")]
    weights = [name for name in inside if len(wanted[name]) > 1] or inside
    return bool(weights) and not set(weights) & set(loaded)


def reinitialises_itself(detector: nn.Module) -> bool:
    """Whether ``init_weights`` may modify weights after ``init_cfg`` was applied.

    It does so in detectors that override ``init_weights`` (DETR, Deformable DETR, DINO …), and in
    those with a child that MMEngine does not know to be initialised.

    Args:
        detector: A detector whose children are initialised.
    """
    init_weights: Callable[..., Any] | None = getattr(type(detector), "init_weights", None)
    return init_weights is not BaseModule.init_weights or any(
        hasattr(child, "init_weights") and not getattr(child, "is_init", False)
        for child in detector.children()
    )


class LoadAgain:
    """Loads the current weights of a module once more when it is first used.

    The first use is ``state_dict()``, ``load_state_dict()`` or a forward pass. The hooks remain
    registered, since torch does not allow a hook to remove itself, but have no further effect.

    Args:
        module: The module.
        names: Names of the parameters and buffers in its ``state_dict``.
    """

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        state = module.state_dict()
        self._weights = {name: state[name].clone() for name in names}
        module.register_state_dict_pre_hook(self)
        module.register_load_state_dict_pre_hook(self)
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, *_: object) -> None:
        """Load the weights if this is the first call."""
        weights, self._weights = self._weights, {}
        if weights:
            module.load_state_dict(weights, strict=False)
