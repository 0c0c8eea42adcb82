"""Test-time averaging over an image and its mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models import DetTTAModel
from mmdet.models.utils import weighted_boxes_fusion
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from dap.registry import MODELS


@MODELS.register_module()
class FlipAveraging(DetTTAModel):
    """Average the boxes and the scores that a detector finds in an image and in its mirror.

    Where ``DetTTAModel`` takes the union of the views' boxes and leaves to NMS the best of each
    pile with its own score, here boxes of one class that overlap are one box: corners are the
    mean weighted by score, and the score is the mean over the views, so that what is found in one
    of two views alone keeps half of its score. (Weighted boxes fusion, arXiv:1910.13302.)

    In a config, for ``mim test mmdet CONFIG --checkpoint FILE --tta``::

        tta_model = dict(type="dap.FlipAveraging")
        tta_pipeline = [
            dict(type="LoadImageFromFile"),
            dict(
                type="TestTimeAug",
                transforms=[
                    [dict(type="Resize", scale=(1066, 640), keep_ratio=True)],
                    [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
                    [
                        dict(
                            type="PackDetInputs",
                            meta_keys=(
                                "img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
                                "flip", "flip_direction",
                            ),
                        )
                    ],
                ],
            ),
        ]

    Args:
        module: The detector, or its config.
        iou_threshold: Boxes of one class with a larger IoU are one. The default is the usual one
            of the detector's own NMS, so that a view is not fused with itself.
        max_per_img: The best so many boxes are kept.
        data_preprocessor: Put in place of the detector's own.

    Raises:
        ValueError: If the threshold is outside [0, 1).
    """

    def __init__(
        self,
        module: dict[str, Any] | nn.Module,
        iou_threshold: float = 0.5,
        max_per_img: int = 100,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        if not 0 <= iou_threshold < 1:
            raise ValueError(f"iou_threshold: expected a number in [0, 1), found {iou_threshold}")
        super().__init__(module=module, data_preprocessor=data_preprocessor)
        self.iou_threshold, self.max_per_img = iou_threshold, max_per_img

    def _merge_single_sample(self, data_samples: Sequence[DetDataSample]) -> DetDataSample:
        """Fuse the views of one image.

        Args:
            data_samples: One per view, boxes in pixels of the original image as the view shows
                it, with ``ori_shape``, ``flip`` and ``flip_direction``.

        Returns:
            The first sample; its boxes (xyxy, pixels of the original image, shape (N, 4)), scores
            (N,) and labels (N,) are the fused ones, best first.

        Raises:
            ValueError: If there are masks, which have no average.
        """
        first = data_samples[0].pred_instances
        if "masks" in first:
            raise ValueError("FlipAveraging averages boxes; found a detector that predicts masks")
        views = [self._upright(sample) for sample in data_samples]
        # 'box_and_model_avg', not 'avg': two boxes of one view must not count as two views.
        bboxes, scores, labels = weighted_boxes_fusion(
            *map(list, zip(*views, strict=True)),
            iou_thr=self.iou_threshold,
            conf_type="box_and_model_avg",
        )
        best = slice(self.max_per_img)
        data_samples[0].pred_instances = InstanceData(
            bboxes=bboxes.reshape(-1, 4)[best].to(first.bboxes),
            scores=scores[best].to(first.scores),
            labels=labels[best].to(first.labels),
        )
        return data_samples[0]

    def _upright(self, sample: DetDataSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn a view's boxes back; leave out those that cannot be averaged.

        A box without area is no box, and a score of 0 has no weight: a mean would be 0 / 0.
        """
        found = sample.pred_instances
        bboxes, scores = self.merge_aug_bboxes([found.bboxes], [found.scores], [sample.metainfo])
        sides = bboxes[:, 2:] - bboxes[:, :2]
        good = torch.logical_and((sides > 0).all(dim=1), scores > 0)
        columns = (bboxes, scores, found.labels)
        bboxes, scores, labels = (column[good].cpu().numpy() for column in columns)
        return bboxes, scores, labels
