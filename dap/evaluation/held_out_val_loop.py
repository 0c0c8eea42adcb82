"""Validation of a pre-training on images that its training set leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner, ValLoop

from dap.registry import LOOPS

# What a validation set has of its own; all else, as files and classes, is the training set's.
OWN = ("part", "pipeline", "filter_cfg", "test_mode", "indices", "_scope_")


@LOOPS.register_module()
class HeldOutValLoop(ValLoop):
    """Validate on the images that ``train_dataloader`` holds out.

    ::

        train_dataloader = dict(..., dataset=dict(type='dap.PseudoBoxDataset', part='train', ...))
        val_cfg = dict(type='dap.HeldOutValLoop')
        val_dataloader = dict(..., dataset=dict(
            type='dap.PseudoBoxDataset', part='val', test_mode=True, pipeline=[...]))
        val_evaluator = dict(type='dap.BoxLocalization')

    The validation set takes from the training set what it does not say itself: ``ann_file``,
    ``data_prefix``, ``held_out``, … Whoever names other boxes for the training has named them for
    the validation, too.

    Args:
        runner: The runner.
        dataloader: Config of a data loader.
        evaluator: Config of metrics.
        **kwargs: Those of :class:`mmengine.runner.ValLoop`.

    Raises:
        ValueError: If the training set holds nothing out.
    """

    def __init__(
        self, runner: Runner, dataloader: Mapping[str, Any], evaluator: Any, **kwargs: Any
    ) -> None:
        train = _innermost(runner.cfg.train_dataloader.dataset)
        if train.get("part") != "train":
            raise ValueError(
                f"HeldOutValLoop: the training set, a {train.get('type')}, holds no images out; "
                "expected a dap.PseudoBoxDataset with part='train'. To train without validation: "
                "val_cfg=None val_dataloader=None val_evaluator=None"
            )
        shared = {key: value for key, value in train.items() if key not in OWN}
        dataset = {**shared, **dataloader["dataset"]}
        super().__init__(runner, {**dataloader, "dataset": dataset}, evaluator, **kwargs)


def _innermost(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The data set within wrappers such as ``RepeatDataset``."""
    while isinstance(dataset.get("dataset"), Mapping):
        dataset = dataset["dataset"]
    return dataset
