"""Similarity to prompts, and which image tokens become queries (arXiv 2505.24025).

Shapes: bs, num_points (sum of H*W over levels), num_queries, num_prompts, dim.
Names: *_logits are unbounded; objectness = sigmoid(logit) in (0, 1).
"""

from __future__ import annotations

import math

import torch
from mmdet.models.dense_heads.grounding_dino_head import ContrastiveEmbed
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...structures import QuerySelection, take_tokens
from .precision import in_float32


class PromptContrastiveEmbed(ContrastiveEmbed):
    """mmdet's ``ContrastiveEmbed`` without its padding to ``max_text_len``.

    Logit = feature · prompt / sqrt(dim) + bias with ``log_scale='auto', bias=True``. Any
    number of prompts fits, and no time goes into columns that nobody reads. In float32, whatever
    autocast says: selection, KL, costs and losses all read these logits. And padding gets the
    lowest finite number rather than mmdet's -inf, of which a loss would make NaN.
    """

    def forward(self, visual_feat: Tensor, text_feat: Tensor, text_token_mask: Tensor) -> Tensor:
        """(bs, n, dim) tokens and (bs, num_prompts, dim) prompts to (bs, n, num_prompts) logits.

        They are float32. Where ``text_token_mask`` (bs, num_prompts) is False a prompt is padding,
        and its logits are the lowest number, whose sigmoid is 0.
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


@MODELS.register_module()
class VisualGuidedQuerySelector(BaseModule):
    """Pick the tokens most similar to any prompt, and refine their boxes.

    Objectness of a token = its best logit over the prompts. The weights it uses belong to the
    detector and its head, under mmdet's names; it has none of its own.

    Args:
        num_queries: how many tokens to pick. The detector sets it from its own.
    """

    def __init__(self, num_queries: int) -> None:
        super().__init__()
        self.num_queries = num_queries

    def forward(
        self,
        memory: Tensor,
        proposals: Tensor,
        prompts: Tensor,
        prompt_mask: Tensor,
        cls_branch: nn.Module,
        reg_branch: nn.Module,
    ) -> QuerySelection:
        """Select, best first.

        ``memory`` (bs, num_points, dim) is transformed, and zero where a token is padding.
        ``proposals`` (bs, num_points, 4) are (cx, cy, w, h) before the sigmoid, inf where the token
        is padding or too near the border. ``prompts`` (bs, num_prompts, dim) are fused and count
        where ``prompt_mask`` (bs, num_prompts) is True. ``cls_branch`` gives the similarity of
        tokens to prompts, ``reg_branch`` their box offsets.

        Raises:
            ValueError: the image has fewer tokens than queries are asked for.
        """
        if memory.shape[1] < self.num_queries:
            raise ValueError(
                f'num_queries={self.num_queries} but the image has only {memory.shape[1]} '
                'feature points; enlarge the images in the pipeline or lower model.num_queries.'
            )
        logits = cls_branch(memory, prompts, prompt_mask)  # (bs, num_points, num_prompts)
        # (bs, num_queries)
        indices = logits.max(dim=-1).values.topk(self.num_queries, dim=1).indices
        selected, logits, proposals = (
            take_tokens(of_tokens, indices) for of_tokens in (memory, logits, proposals)
        )
        # mmdet refines the boxes of all tokens and then gathers; the result is the same
        return QuerySelection(indices, logits, reg_branch(selected) + proposals)

    @staticmethod
    def objectness_logits(
        tokens: Tensor, prompts: Tensor, prompt_mask: Tensor, cls_branch: nn.Module
    ) -> Tensor:
        """(bs, n) objectness of (bs, n, dim) tokens that were selected elsewhere.

        For the reference model; prompts and ``cls_branch`` are as for :meth:`forward`.
        """
        return cls_branch(tokens, prompts, prompt_mask).max(dim=-1).values
