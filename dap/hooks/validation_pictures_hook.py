"""Draw the same few images at every validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.fileio import get
from mmengine.runner import Runner

from dap.evaluation.evaluate import evenly_spread
from dap.registry import HOOKS


@HOOKS.register_module()
class ValidationPicturesHook(DetVisualizationHook):
    """Draw the same few images at every validation: true boxes (left) and detections (right).

    In a config::

        default_hooks = dict(visualization=dict(type='dap.ValidationPicturesHook'))

    The images go to all backends of the visualizer, as ``val_img_<batch>`` at the iteration of the
    training: TensorBoard, ``vis_data/vis_image/`` of the local backend. Only the main process
    draws, from the predictions that the validation has made. An image that cannot be drawn gives a
    warning.

    mmdet's ``DetVisualizationHook(draw=True)`` draws those batches whose number, added to the
    iteration, is a multiple of ``interval``. Its images therefore change at the last validation
    and with the number of processes. It also decodes every image a second time, and an image that
    cannot be read stops the training.

    Args:
        num_images: Number of images per validation; 0 for none. They are the first images of as
            many batches, spaced evenly over the batches of the main process.
        **kwargs: Arguments of mmdet's ``DetVisualizationHook``. ``score_thr`` and ``backend_args``
            also apply to validation; ``draw`` and the others apply only to tests.

    Raises:
        ValueError: If ``num_images`` is negative or not an integer.
    """

    def __init__(self, num_images: int = 4, **kwargs: Any) -> None:
        if not isinstance(num_images, int) or num_images < 0:
            raise ValueError(
                f"ValidationPicturesHook: num_images={num_images!r}; expected an integer from 0"
            )
        super().__init__(**kwargs)
        self.num_images = num_images

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any],
        outputs: Sequence[DetDataSample],
    ) -> None:
        """Draw the first image of a batch if it is one of those that are shown."""
        drawn = evenly_spread(len(runner.val_dataloader), self.num_images)
        if not is_main_process() or batch_idx not in drawn:
            return
        sample = outputs[0]
        try:
            content = get(sample.img_path, backend_args=self.backend_args)
            self._visualizer.add_datasample(
                f"val_img_{batch_idx}",
                mmcv.imfrombytes(content, channel_order="rgb"),
                sample,
                pred_score_thr=self.score_thr,
                step=runner.iter,
            )
        except Exception as error:  # noqa: BLE001 - of any file system, visualizer or backend
            runner.logger.warning(
                f"{sample.img_path} cannot be drawn: {type(error).__name__}: {error}"
            )
