"""Contrast of visual prompts with one another and with a memory of classes (the use is ours).

Shapes: num_boxes (exemplars: all ground truth of the batch), dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine import dist
from mmengine.logging import MessageHub
from torch import Tensor, nn

from ...utils.device_copy import to_device


@MODELS.register_module()
class PromptContrastiveLoss(nn.Module):
    """Boxes of one class give like prompts, boxes of different classes unlike ones.

    The supervised contrastive loss (arXiv 2004.11362, L_out of equation 2), with the prompts of
    the batch's boxes as its samples: a box is to be told from all others by those of its own
    class. So the prompt of one exemplar comes close to the mean of many, and classes part. It
    needs no class names.

    The memory adds a sample per class: the running mean of its prompts, through which no gradient
    goes. So a box has something to be like where it is alone in its class, and something to be
    told from where few classes are in the batch. It is the mean over all ranks, the same on each.
    Checkpoints have it; a training that starts, instead of being resumed, starts with none.

    Args:
        num_classes: of the training set, at least; the detector gives its own.
        dim: of the prompts, likewise.
        loss_weight: factor of the loss.
        temperature: of the cosines.
        memory_rate: how far a step moves the memory of a class to the mean of the class's boxes; 0:
            no memory.

    Attributes:
        memory: (num_classes, dim) float, 0 for a class that was not seen.

    Raises:
        ValueError: the temperature is not positive, the weight negative, or the rate not within
            [0, 1].
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        loss_weight: float = 1.0,
        temperature: float = 0.1,
        memory_rate: float = 0.2,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and loss_weight >= 0 and 0 <= memory_rate <= 1):
            raise ValueError(
                'PromptContrastiveLoss needs temperature > 0, loss_weight >= 0 and memory_rate '
                f'within [0, 1], got temperature={temperature}, loss_weight={loss_weight}, '
                f'memory_rate={memory_rate}'
            )
        self.loss_weight = loss_weight
        self.temperature = temperature
        self.memory_rate = memory_rate
        self.register_buffer('memory', torch.zeros(num_classes, dim))

    @property
    def seen(self) -> Tensor:
        """(num_classes,) bool, the classes that the memory has."""
        return self.memory.any(dim=1)

    def forward(self, prompts: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss (``loss_prompt_contrast``), in float32 whatever autocast says.

        The mean over the boxes that have another sample of their class; 0 where none has.
        ``prompts`` are (num_boxes, dim), ``labels`` (num_boxes,) long, on the CPU; a negative one
        stands for no class. The memory takes them in afterwards. All ranks must call it.
        """
        if MessageHub.get_current_instance().get_info('iter', 1) == 0:
            self.memory.zero_()  # what came with weights is of another training's classes
        (labels,) = to_device(prompts.device, labels)
        classes = torch.arange(len(self.memory), device=labels.device)
        with torch.autocast(prompts.device.type, enabled=False):
            prompts = prompts.float()
            directions = F.normalize(torch.cat([prompts, self.memory]), dim=-1)
            logits = directions[: len(labels)] @ directions.T / self.temperature
            # (num_boxes, num_boxes + num_classes) the samples to tell a box from, those it is like
            is_sample = torch.cat([torch.ones_like(labels, dtype=torch.bool), self.seen])
            others = is_sample & ~torch.eye(*logits.shape, dtype=torch.bool, device=labels.device)
            same = labels[:, None] == torch.cat([labels, classes])
            same &= others & (labels >= 0)[:, None]
            counts = same.sum(dim=1, keepdim=True)
            lowest = torch.finfo(logits.dtype).min
            log_probability = logits.masked_fill(~others, lowest).log_softmax(dim=1)
            of_boxes = log_probability.masked_fill(~same, 0).sum(dim=1) / counts[:, 0].clamp(min=1)
            loss = -of_boxes.sum() / (counts > 0).sum().clamp(min=1)
            if self.memory_rate:
                self._remember(prompts.detach(), (labels[:, None] == classes).float())
        return dict(loss_prompt_contrast=self.loss_weight * loss)

    def _remember(self, prompts: Tensor, one_hot: Tensor) -> None:
        """Take in the prompts of all ranks' boxes; ``one_hot`` is (num_boxes, num_classes)."""
        # (num_classes, dim + 1) sums of the prompts, numbers of boxes
        sums = one_hot.T @ F.pad(prompts, (0, 1), value=1.0)
        dist.all_reduce(sums)
        counts = sums[:, -1:]
        rate = torch.where(self.seen[:, None], self.memory_rate, 1.0) * (counts > 0)
        self.memory += rate * (sums[:, :-1] / counts.clamp(min=1) - self.memory)
