"""Test-time averaging over an image and its mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import nn

from dap.registry import MODELS


@MODELS.register_module()
class FlipAveraging(DetTTAModel):
    """Average the boxes and the scores that a detector finds in an image and in its mirror.

    Where ``DetTTAModel`` takes the union of the views' boxes and leaves to NMS the best of each
    pile with its own score, here a box and the one box of each other view that overlaps it most,
    of the same class, are one: corners are the mean weighted by score, and the score is the mean
    over the views, where a view without such a box counts 0. So what is found in one of two views
    alone keeps half of its score, and two boxes of one view stay two. The best boxes choose
    first. (After weighted boxes fusion, arXiv:1910.13302, which also fuses boxes of one view.)

    In a config ``tta_model = dict(type="dap.FlipAveraging")``, for ``mim test mmdet CONFIG
    --checkpoint FILE --tta``. The ``tta_pipeline`` to go with it stands in ``predict_….py`` of
    ``configs/finetune/self_training``.

    Args:
        module: The detector, or its config.
        iou_threshold: Boxes of one class in different views are one if their IoU is larger.
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
        bboxes, scores, labels = map(torch.cat, zip(*views, strict=True))
        view_of = torch.cat([torch.full_like(view[2], i) for i, view in enumerate(views)])
        piles = self._piles(bboxes, scores, labels, view_of)
        fused = InstanceData(
            bboxes=bboxes.new_zeros(len(piles), 4),
            scores=scores.new_zeros(len(piles)),
            labels=labels[[pile[0] for pile in piles]],
        )
        for number, pile in enumerate(piles):
            total = scores[pile].sum()
            fused.bboxes[number] = scores[pile] @ bboxes[pile] / total
            fused.scores[number] = total / len(views)
        order = fused.scores.argsort(descending=True, stable=True)
        data_samples[0].pred_instances = fused[order[: self.max_per_img]].to(first.bboxes.device)
        return data_samples[0]

    def _piles(
        self,
        bboxes: torch.Tensor,
        scores: torch.Tensor,
        labels: torch.Tensor,
        view_of: torch.Tensor,
    ) -> list[list[int]]:
        """Group boxes, at most one of each view: their places in the tensors, the best first."""
        overlaps = bbox_overlaps(bboxes, bboxes) * (labels[:, None] == labels)
        free = torch.ones_like(labels, dtype=torch.bool)
        views, piles = set(view_of.tolist()), []
        for best in scores.argsort(descending=True, stable=True).tolist():
            if not free[best]:
                continue
            pile = [best]
            for view in views - {int(view_of[best])}:
                candidates = overlaps[best] * (free & (view_of == view))
                nearest = int(candidates.argmax())
                if candidates[nearest] > self.iou_threshold:
                    pile.append(nearest)
            free[pile] = False
            piles.append(pile)
        return piles

    def _upright(self, sample: DetDataSample) -> list[torch.Tensor]:
        """Turn a view's boxes back; leave out those that cannot be averaged.

        A box without area is no box, and a score of 0 has no weight: a mean would be 0 / 0.
        """
        found = sample.pred_instances
        bboxes, scores = self.merge_aug_bboxes([found.bboxes], [found.scores], [sample.metainfo])
        sides = bboxes[:, 2:] - bboxes[:, :2]
        good = torch.logical_and((sides > 0).all(dim=1), scores > 0)
        columns = (bboxes, scores, found.labels)
        return [column[good].cpu() for column in columns]
