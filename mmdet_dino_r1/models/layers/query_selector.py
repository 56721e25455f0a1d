"""Visual-guided query selection (arXiv 2505.24025): which image tokens become queries.

Shapes: bs, num_points (sum of H*W over levels), num_queries, num_prompts, dim.
Names: *_logits are unbounded; objectness = sigmoid(logit) in (0, 1).
"""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...structures import QuerySelection, take_tokens


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

        Args:
            memory: (bs, num_points, dim) transformed memory, zero where a token is padding.
            proposals: (bs, num_points, 4) (cx, cy, w, h) before the sigmoid; inf where the
                token is padding or too near the border.
            prompts: (bs, num_prompts, dim) fused prompts.
            prompt_mask: (bs, num_prompts) bool, True where the prompt counts.
            cls_branch: similarity of tokens to prompts.
            reg_branch: box offsets of tokens.

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
        """Objectness of tokens that were selected elsewhere (for the reference model).

        Args:
            tokens: (bs, n, dim) transformed memory.
            prompts: (bs, num_prompts, dim) fused prompts.
            prompt_mask: (bs, num_prompts) bool, True where the prompt counts.
            cls_branch: similarity of tokens to prompts.

        Returns:
            (bs, n) logits.
        """
        return cls_branch(tokens, prompts, prompt_mask).max(dim=-1).values
