"""mmdet's Quality Focal Loss for a weight of low power (ours)."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class PromptQualityFocalLoss(QualityFocalLoss):
    """|w - p|^beta times the cross entropy of score p and target w (QFL of arXiv 2006.04388).

    The values are the parent's. The weight is a constant here: the parent differentiates it,
    which with beta below 1 has an infinite slope where a score meets its target. Nor does the CPU
    wait for the device, as the parent does to find the positives.

    Args:
        beta: power of the weight; the lower, the fewer duplicates.
        loss_weight: factor of the loss.
    """

    def __init__(self, beta: float = 0.5, loss_weight: float = 1.0) -> None:
        super().__init__(beta=beta, loss_weight=loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss of each logit, or reduced to a scalar; arguments are the parent's.

        ``pred`` are logits, ``target`` of their shape in [0, 1], 0 for the background.
        """
        distance = (target - pred.detach().sigmoid()).abs()
        loss = distance**self.beta * F.binary_cross_entropy_with_logits(
            pred, target, reduction='none'
        )
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
