"""More classes out of the same images (ours)."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.logging import MessageHub
from torch import Tensor, nn


@MODELS.register_module()
class BatchChannelShuffle(nn.Module):
    """Shuffle the colour channels of a batch, all its images alike.

    A class then looks another way than in other batches, and the same within its own, where its
    prompts come from: what is to be found is told by the prompts, not by memory. An entry of
    ``model.data_preprocessor.batch_augments``, so in training alone. The number of the step
    decides: all ranks do the same, as prompts shared between them need, and a resumed run goes on
    as it would have.

    Args:
        prob: share of the batches that are shuffled; one shuffle in six changes nothing.

    Raises:
        ValueError: the share is not within [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__()
        if not 0 <= prob <= 1:
            raise ValueError(f'BatchChannelShuffle.prob must be within [0, 1], got {prob}')
        self.prob = prob

    def forward(self, inputs: Tensor, data_samples: list) -> tuple[Tensor, list]:
        """(bs, 3, H, W) normalised images, shuffled or as they are, and the samples untouched."""
        step = MessageHub.get_current_instance().get_info('iter', 0)
        generator = torch.Generator().manual_seed(step)
        if torch.rand((), generator=generator) >= self.prob:
            return inputs, data_samples
        order = torch.randperm(inputs.shape[1], generator=generator).tolist()
        # an index would be copied to the device
        return torch.stack([inputs[:, channel] for channel in order], dim=1), data_samples
