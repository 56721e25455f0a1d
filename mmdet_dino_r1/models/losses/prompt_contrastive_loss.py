"""Contrast of visual prompts with one another (the use is ours).

Shapes: num_boxes (exemplars: all ground truth of the batch), dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...utils.device_copy import to_device


@MODELS.register_module()
class PromptContrastiveLoss(nn.Module):
    """Boxes of one class give like prompts, boxes of different classes unlike ones.

    The supervised contrastive loss (arXiv 2004.11362, L_out of equation 2), with the prompts of
    the batch's boxes as its samples: a box is to be told from all others by those of its own
    class. So the prompt of one exemplar comes close to the mean of many, and classes part. It
    needs no class names.

    Args:
        loss_weight: factor of the loss.
        temperature: of the cosines.

    Raises:
        ValueError: the temperature is not positive, or the weight negative.
    """

    def __init__(self, loss_weight: float = 1.0, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0 or not loss_weight >= 0:
            raise ValueError(
                'PromptContrastiveLoss needs temperature > 0 and loss_weight >= 0, got '
                f'temperature={temperature}, loss_weight={loss_weight}'
            )
        self.loss_weight = loss_weight
        self.temperature = temperature

    def forward(self, prompts: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss (``loss_prompt_contrast``), in float32 whatever autocast says.

        The mean over the boxes that are not alone in their class; 0 where all are. ``prompts`` are
        (num_boxes, dim), ``labels`` (num_boxes,) long, on the CPU; a negative one stands for no
        class.
        """
        itself = torch.eye(len(labels), dtype=torch.bool)
        # (num_boxes, num_boxes) the share of each other box of the same class
        same = (labels[:, None] == labels) & ~itself & (labels >= 0)
        share = same / same.sum(dim=1, keepdim=True).clamp(min=1)
        not_alone = int(same.any(dim=1).sum())
        with torch.autocast(prompts.device.type, enabled=False):
            share, itself = to_device(prompts.device, share, itself)
            directions = F.normalize(prompts.float(), dim=-1)
            logits = directions @ directions.T / self.temperature
            lowest = torch.finfo(logits.dtype).min
            log_probability = logits.masked_fill(itself, lowest).log_softmax(dim=1)
            loss = -(share * log_probability.masked_fill(itself, 0)).sum() / max(not_alone, 1)
        return dict(loss_prompt_contrast=self.loss_weight * loss)
