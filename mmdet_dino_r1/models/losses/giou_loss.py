"""mmdet's GIoU loss without its wait for the device: the same numbers (ours)."""

from __future__ import annotations

from mmdet.models.losses import GIoULoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor

from ...utils.overlap import generalised_iou


@MODELS.register_module()
class PromptGIoULoss(GIoULoss):
    """1 - GIoU of pairs of boxes; see :func:`generalised_iou`."""

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss, (n,) or reduced to a scalar; arguments are the parent's.

        ``pred`` and ``target`` are (n, 4) (x1, y1, x2, y2).
        """
        loss = 1 - generalised_iou(pred, target, self.eps)
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
