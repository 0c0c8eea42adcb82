"""Log how a total batch that differs from the recipe's changes the training."""

from __future__ import annotations

from fractions import Fraction

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from dap.registry import HOOKS


@HOOKS.register_module()
class TotalBatchHook(Hook):
    """Log the learning rate in use if the total batch is not the one that the config is made for.

    If ``auto_scale_lr`` is enabled, MMEngine scales the learning rate by batch size × processes,
    and logs only the factor. It ignores gradient accumulation, does not scale schedules that count
    iterations, and a resumed optimizer keeps the learning rate of its checkpoint. In a config:
    ``custom_hooks = [dict(type='dap.TotalBatchHook')]``. The hook changes nothing. It logs nothing
    if the batch is ``auto_scale_lr.base_batch_size`` and the learning rate that of the config, or
    if data sets have different batch sizes.
    """

    def __init__(self) -> None:
        self.initial_rates: list[float] | None = None

    def before_run(self, runner: Runner) -> None:
        """Store the learning rates as MMEngine scaled them, before a checkpoint is resumed."""
        if isinstance(runner.optim_wrapper, OptimWrapper):
            self.initial_rates = base_learning_rates(runner.optim_wrapper)

    def before_train(self, runner: Runner) -> None:
        """Log a warning if batch or learning rate differ from those of the recipe."""
        base = (runner.auto_scale_lr or {}).get("base_batch_size")
        if base is None or (images := images_per_iteration(runner)) is None:
            return
        counts = accumulated_iterations(runner.optim_wrapper)
        resumed = base_learning_rates(runner.optim_wrapper) != self.initial_rates
        scaled = runner.auto_scale_lr.get("enable", False) and images != base
        if images * counts != base or resumed or scaled:
            parts = [
                f"{_batch(images, runner.world_size, counts)}; the config's recipe is for {base}",
                self._learning_rate(runner, images, counts, base),
            ]
            if images != base:
                parts.append(_schedule(Fraction(images) / Fraction(base)))
            runner.logger.warning("; ".join(parts))

    def _learning_rate(self, runner: Runner, images: int, counts: int, base: float) -> str:
        used = base_learning_rates(runner.optim_wrapper)
        text = f"LR in the config {_numbers(configured_learning_rates(runner.optim_wrapper))}"
        enabled = runner.auto_scale_lr.get("enable", False)
        if used != self.initial_rates:
            scaled = _numbers(self.initial_rates or [])
            scaling = f"scaling gives {scaled}" if enabled else "scaling is off"
            return f"{text}, used {_numbers(used)}, which the resumed checkpoint has ({scaling})"
        if not enabled:
            return (
                f"{text}, used {_numbers(used)}: NOT scaled to the batch (to have it scaled: "
                "auto_scale_lr.enable=True, or mmdet's --auto-scale-lr)"
            )
        text += f", used {_numbers(used)}: scaled by {images}/{base}"
        if counts > 1:
            text += (
                f", which leaves the {counts} accumulated iterations out (for another LR: "
                "auto_scale_lr.enable=False, optim_wrapper.optimizer.lr=…)"
            )
        return text


def images_per_iteration(runner: Runner) -> int | None:
    """Count the images that all processes together see in one iteration.

    None if iterations differ, as with mmdet's ``MultiDataAspectRatioBatchSampler``, which draws
    each batch from one of several data sets and has a batch size for each.
    """
    sampler = runner.train_dataloader.batch_sampler
    # The data loader's own batch_size is None with a sampler like AspectRatioBatchSampler.
    batch_size = 1 if sampler is None else sampler.batch_size
    return batch_size * runner.world_size if isinstance(batch_size, int) else None


def accumulated_iterations(optim_wrapper: OptimWrapper) -> int:
    """Count the iterations per optimizer step; the maximum if there are several optimizers."""
    return max(wrapper._accumulative_counts for wrapper in _wrappers(optim_wrapper))


def configured_learning_rates(optim_wrapper: OptimWrapper) -> list[float]:
    """List the learning rate of each optimizer in the config."""
    return [wrapper.optimizer.defaults["lr"] for wrapper in _wrappers(optim_wrapper)]


def base_learning_rates(optim_wrapper: OptimWrapper) -> list[float]:
    """List the learning rate of each parameter group before schedulers change it."""
    return [
        group.get("initial_lr", group["lr"])
        for wrapper in _wrappers(optim_wrapper)
        for group in wrapper.optimizer.param_groups
    ]


def _wrappers(optim_wrapper: OptimWrapper) -> list[OptimWrapper]:
    if isinstance(optim_wrapper, OptimWrapperDict):
        return list(optim_wrapper.values())
    return [optim_wrapper]


def _numbers(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _batch(images: int, processes: int, counts: int) -> str:
    accumulated = f" x {counts} accumulated iterations" if counts > 1 else ""
    factors = f"{images // processes} x {processes} process{'es' * (processes > 1)}{accumulated}"
    return f"total batch {images * counts} ({factors})"


def _schedule(share: Fraction) -> str:
    seen = f"{share} of the images" if share.denominator > 1 else f"{share} times the images"
    return f"an iteration sees {seen}; MMEngine scales nothing that counts iterations"
