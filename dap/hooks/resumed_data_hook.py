"""Advance the data of a resumed iteration-based training without loading it."""

from __future__ import annotations

from itertools import chain, islice

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from dap.registry import HOOKS


@HOOKS.register_module()
class ResumedDataHook(Hook):
    """Skip the batches that a resumed training has seen, by their indices.

    MMEngine's ``IterBasedTrainLoop`` loads and drops these batches, images included, before its
    first iteration. Late in a training this takes hours, longer than the time limit of many batch
    jobs. This hook draws their indices alone, which takes some microseconds per image, and the
    training continues with the same batches as if all had been loaded. In a config:
    ``custom_hooks = [dict(type='dap.ResumedDataHook')]``. It does nothing in other loops, nor with
    other samplers than ``InfiniteSampler``: MMEngine counts their epochs.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Called by the loop before it drops the batches."""
        loop = runner.train_loop
        if not isinstance(loop, IterBasedTrainLoop) or not loop.iter:
            return
        sampler = getattr(loop.dataloader.batch_sampler, "sampler", None)
        # The loader draws its batches of indices from this iterator. A second one would not do: a
        # batch sampler may keep images for its next batches.
        batches = getattr(loop.dataloader_iterator, "_iterator", None)
        indices = getattr(batches, "_sampler_iter", None)
        if isinstance(sampler, InfiniteSampler) and indices is not None:
            loader = loop.dataloader
            begun = loader.num_workers * (loader.prefetch_factor or 0)  # its workers load these
            skipped = islice(indices, max(0, loop.iter - begun))
            loop.dataloader_iterator = chain((None for _ in skipped), loop.dataloader_iterator)
