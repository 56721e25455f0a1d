"""Similarity of image features to prompts, as wide as there are prompts."""

from __future__ import annotations

import math

from mmdet.models.dense_heads.grounding_dino_head import ContrastiveEmbed
from torch import Tensor, nn


class PromptContrastiveEmbed(ContrastiveEmbed):
    """mmdet's ``ContrastiveEmbed`` without its padding to ``max_text_len``.

    Logit = feature · prompt / sqrt(dim) + bias with ``log_scale='auto', bias=True``. Any
    number of prompts fits, and no time goes into columns that nobody reads.
    """

    def forward(self, visual_feat: Tensor, text_feat: Tensor, text_token_mask: Tensor) -> Tensor:
        """Logits.

        Args:
            visual_feat: (bs, n, dim).
            text_feat: (bs, num_prompts, dim).
            text_token_mask: (bs, num_prompts) bool, True where the prompt counts.

        Returns:
            (bs, n, num_prompts); -inf at padding prompts.
        """
        logits = visual_feat @ text_feat.transpose(-1, -2)
        if isinstance(self.log_scale, nn.Parameter):
            logits = logits * self.log_scale.exp()
        elif self.log_scale == 'auto':
            logits = logits / math.sqrt(visual_feat.shape[-1])
        if self.bias is not None:
            logits = logits + self.bias
        return logits.masked_fill(~text_token_mask[:, None], float('-inf'))
