"""Validation of a pre-training on images that its training set holds out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner, ValLoop

from dap.registry import LOOPS

# Keys that are not copied from the training set to the validation set.
NOT_INHERITED = ("part", "pipeline", "filter_cfg", "test_mode", "indices", "_scope_")


@LOOPS.register_module()
class HeldOutValLoop(ValLoop):
    """Validate on the images that ``train_dataloader`` holds out.

    ::

        train_dataloader = dict(..., dataset=dict(type='dap.PseudoBoxDataset', part='train', ...))
        val_cfg = dict(type='dap.HeldOutValLoop')
        val_dataloader = dict(..., dataset=dict(
            type='dap.PseudoBoxDataset', part='val', test_mode=True, pipeline=[...]))
        val_evaluator = dict(type='dap.BoxLocalization')

    Keys that the config of the validation set omits are copied from the training set:
    ``ann_file``, ``data_prefix``, ``held_out``, … Boxes, for example, need to be set for the
    training set only.

    Args:
        runner: The runner.
        dataloader: Config of a data loader.
        evaluator: Config of metrics.
        **kwargs: Arguments of :class:`mmengine.runner.ValLoop`.

    Raises:
        ValueError: If the training set holds nothing out.
    """

    def __init__(
        self, runner: Runner, dataloader: Mapping[str, Any], evaluator: Any, **kwargs: Any
    ) -> None:
        train = runner.cfg.train_dataloader.dataset
        while isinstance(train.get("dataset"), Mapping):  # wrappers such as RepeatDataset
            train = train["dataset"]
        if train.get("part") != "train":
            raise ValueError(
                f"HeldOutValLoop: the training set, a {train.get('type')}, holds no images out; "
                "expected a dap.PseudoBoxDataset with part='train'. To train without validation: "
                "val_cfg=None val_dataloader=None val_evaluator=None"
            )
        shared = {key: value for key, value in train.items() if key not in NOT_INHERITED}
        dataset = {**shared, **dataloader["dataset"]}
        super().__init__(runner, {**dataloader, "dataset": dataset}, evaluator, **kwargs)
