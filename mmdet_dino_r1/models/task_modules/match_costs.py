"""mmdet's match costs without their waits for the device: the same numbers (ours).

Shapes: num_preds (queries of all layers), num_prompts, num_gts (of one image).
"""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import BBoxL1Cost, BinaryFocalLossCost, IoUCost
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

from ...utils.overlap import generalised_iou


@TASK_UTILS.register_module()
class PromptFocalLossCost(BinaryFocalLossCost):
    """mmdet's ``BinaryFocalLossCost`` where no prompt is padding.

    The parent finds the tokens that count with ``nonzero``, a wait for the device for each
    image. In training all images share all prompts, so all count.
    """

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, **kwargs
    ) -> Tensor:
        """(num_preds, num_gts) cost; arguments are the parent's.

        Read are ``scores`` (num_preds, num_prompts), logits, and ``positive_maps`` (num_gts,
        num_prompts).
        """
        return self._focal_loss_cost(pred_instances.scores, gt_instances.positive_maps)


@TASK_UTILS.register_module()
class PromptBBoxL1Cost(BBoxL1Cost):
    """mmdet's ``BBoxL1Cost``, which copies each image's size to the device once more."""

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict, **kwargs
    ) -> Tensor:
        """(num_preds, num_gts) cost; arguments are the parent's.

        Read are ``bboxes`` (x1, y1, x2, y2) in pixels and of ``img_meta`` the ``scale`` (4,),
        pixels per normalised unit (w, h, w, h), which ``BatchedHungarianAssigner`` adds.
        """
        predicted, wanted = (
            (bbox_xyxy_to_cxcywh(boxes) if self.box_format == 'xywh' else boxes) / img_meta['scale']
            for boxes in (pred_instances.bboxes, gt_instances.bboxes)
        )
        return torch.cdist(predicted, wanted, p=1) * self.weight


@TASK_UTILS.register_module()
class PromptGIoUCost(IoUCost):
    """mmdet's ``IoUCost`` in its default mode; see :func:`generalised_iou`.

    Args:
        weight: of the cost.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight=weight)

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, **kwargs
    ) -> Tensor:
        """(num_preds, num_gts) cost of ``bboxes`` (x1, y1, x2, y2); arguments are the parent's."""
        return -generalised_iou(pred_instances.bboxes[:, None], gt_instances.bboxes) * self.weight
