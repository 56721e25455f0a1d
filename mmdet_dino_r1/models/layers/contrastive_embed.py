"""Similarity of image features to prompts, as wide as there are prompts."""

from __future__ import annotations

import math

import torch
from mmdet.models.dense_heads.grounding_dino_head import ContrastiveEmbed
from torch import Tensor, nn

from .precision import in_float32


class PromptContrastiveEmbed(ContrastiveEmbed):
    """mmdet's ``ContrastiveEmbed`` without its padding to ``max_text_len``.

    Logit = feature · prompt / sqrt(dim) + bias with ``log_scale='auto', bias=True``. Any
    number of prompts fits, and no time goes into columns that nobody reads. In float32, whatever
    autocast says: selection, KL, costs and losses all read these logits. And padding gets the
    lowest finite number rather than mmdet's -inf, of which a loss would make NaN.
    """

    def forward(self, visual_feat: Tensor, text_feat: Tensor, text_token_mask: Tensor) -> Tensor:
        """Logits.

        Args:
            visual_feat: (bs, n, dim).
            text_feat: (bs, num_prompts, dim).
            text_token_mask: (bs, num_prompts) bool, True where the prompt counts.

        Returns:
            (bs, n, num_prompts) float32; the lowest float32 number at padding prompts, whose
            sigmoid is 0.
        """
        with in_float32(visual_feat):
            logits = visual_feat.float() @ text_feat.float().transpose(-1, -2)
            if isinstance(self.log_scale, nn.Parameter):
                logits = logits * self.log_scale.exp()
            elif self.log_scale == 'auto':
                logits = logits / math.sqrt(visual_feat.shape[-1])
            if self.bias is not None:
                logits = logits + self.bias
            lowest = torch.finfo(logits.dtype).min
            return logits.masked_fill(~text_token_mask[:, None], lowest)
