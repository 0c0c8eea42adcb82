"""Validation of a pre-training on images that its training set holds out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
from mmengine.dist import all_gather_object
from mmengine.runner import Runner, ValLoop

from dap.registry import LOOPS

# Keys that are not copied from the training set to the validation set.
NOT_INHERITED = ("part", "pipeline", "filter_cfg", "test_mode", "indices", "_scope_")
# Errors of reading an image; MMDetection asserts that a file could be decoded.
UNREADABLE = (OSError, ValueError, AssertionError, cv2.error)
NAMED = 5  # maximum number of images that a warning names


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

    A batch with an image that cannot be read is left out, and the training goes on. A warning
    counts and names these images.

    Args:
        runner: The runner.
        dataloader: Config of a data loader.
        evaluator: Config of metrics.
        **kwargs: Arguments of :class:`mmengine.runner.ValLoop`.

    Raises:
        ValueError: If the training set holds out no images. :meth:`run` raises it if no image can
            be read.
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
        self.dataloader: Any = _ReadableBatches(self.dataloader, runner)


class _ReadableBatches:
    """The batches of a ``DataLoader``, except those with an image that cannot be read."""

    def __init__(self, loader: Any, runner: Runner) -> None:
        self._loader, self._logger = loader, runner.logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)  # after an error it continues with the next batch
        left_out: dict[int, str] = {}
        for indices in self._loader.batch_sampler:
            try:
                batch = next(batches)
            except UNREADABLE as error:
                reasons = str(error).strip().splitlines() or [type(error).__name__]
                left_out |= dict.fromkeys(indices, reasons[-1])
            else:
                yield batch
        next(batches, None)  # ends its workers
        self._report(left_out)

    def _report(self, left_out: dict[int, str]) -> None:
        of_all: dict[int, str] = {}
        for of_process in all_gather_object(left_out):  # only the main process logs warnings
            of_all |= of_process
        if of_all:
            named = [
                f"{self.dataset.get_data_info(index)['img_path']} ({of_all[index]})"
                for index in sorted(of_all)[:NAMED]
            ]
            self._logger.warning(
                f"{len(of_all)} of {len(self.dataset)} held-out images are left out of the "
                f"validation, their batches cannot be read: {', '.join(named)}"
            )
