"""Rewards: how well each query does, from the match cost (arXiv 2505.24025, Section 3)."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from torch import Tensor


@TASK_UTILS.register_module()
class BestMatchReward:
    """Minus the cost of the ground truth that suits the query best."""

    def __call__(self, cost: Tensor) -> Tensor:
        """(..., num_queries, num_gts) cost -> (..., num_queries) reward.

        Without ground truth there is nothing to be rewarded for: 0.
        """
        if cost.shape[-1] == 0:
            return cost.sum(dim=-1)
        return -cost.min(dim=-1).values
