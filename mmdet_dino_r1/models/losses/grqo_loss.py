"""Group Relative Query Optimization (arXiv 2505.24025, Algorithm 1 and Section 3).

The reward of each query, its advantage in the group, the KL, and the losses made of them.

Shapes: num_layers (decoder layers), bs, num_queries (matching queries only, in selection order:
highest objectness first), num_gts (of one image).
Names: reward = minus the lowest match cost; group = the queries of one image at one layer;
advantage = reward normalised in its group; KL = distance to the reference model's objectness.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

# Of a log-ratio of objectness. Up to here the KL is exact; e^88 is more than float32 holds.
MAX_LOG_RATIO = 20.0


@TASK_UTILS.register_module()
class BestMatchReward:
    """Minus the match cost of the ground truth that suits the query best."""

    def __call__(self, cost: Tensor) -> Tensor:
        """(..., num_queries, num_gts) cost -> (..., num_queries) reward.

        Without ground truth there is nothing to be rewarded for: 0.
        """
        if cost.shape[-1] == 0:
            return cost.sum(dim=-1)
        return -cost.min(dim=-1).values


def group_advantage(reward: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise rewards within each group (Algorithm 1; equation of the advantage).

    Args:
        reward: (..., num_queries). The gradient flows through the mean and the standard
            deviation too, so that a whole group's advantages always sum to zero.
        eps: added to the standard deviation (over num_queries - 1).

    Returns:
        The same shape. Where all rewards of a group are equal, or there is but one query,
        the advantage is 0 and carries no gradient.
    """
    centred = reward - reward.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / max(reward.shape[-1] - 1, 1)
    varied = variance > 0
    # sqrt has an infinite slope at 0: take it of 1 there and throw the result away
    std = torch.where(varied, variance, torch.ones_like(variance)).sqrt()
    return torch.where(varied, centred / (std + eps), torch.zeros_like(centred))


def mute_last(advantage: Tensor, mute_share: float) -> Tensor:
    """Zero the advantages of the queries with the lowest objectness (300 of 900).

    Without it the mean advantage is identically zero and teaches nothing.

    Args:
        advantage: (..., num_queries), highest objectness first.
        mute_share: share of the queries to mute, rounded down to whole queries.
    """
    num_queries = advantage.shape[-1]
    # 1e-6: a share written as 0.3333333 still means 300 of 900
    num_kept = num_queries - int(num_queries * mute_share + 1e-6)
    kept = torch.arange(num_queries, device=advantage.device) < num_kept
    return advantage * kept


def objectness_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL of the current objectness from the reference model's, the "k3" estimate.

    q/p - log(q/p) - 1 with p = sigmoid(logits), q = sigmoid(reference_logits): zero where
    they agree, positive elsewhere. Computed from logits, so that a tiny p costs no precision.
    Where q is more than e^20 times p it goes on along its tangent (ours): finite for any logits,
    with a gradient that still points the right way.

    Args:
        logits: any shape; the gradient flows here.
        reference_logits: the same shape, treated as constant.
    """
    log_ratio = F.logsigmoid(reference_logits.detach()) - F.logsigmoid(logits)
    # Two branches that never both have a gradient: e^20 - 1 here and minus itself there would
    # leave, in float32, nothing of a slope below 16.
    exact = log_ratio.clamp(max=MAX_LOG_RATIO)
    beyond = F.relu(log_ratio - MAX_LOG_RATIO)
    return torch.expm1(exact) - exact + math.expm1(MAX_LOG_RATIO) * beyond


@MODELS.register_module()
class GRQOLoss(nn.Module):
    """Rewards and objectness -> the GRQO losses, summed over decoder layers.

    Per layer: mean over images and queries of ( - reward_weight * advantage + kl_weight * KL ).
    Both terms are returned by themselves, with their weights in them.

    Args:
        reward_weight: alpha in the paper.
        kl_weight: beta in the paper; 0 switches the reference model off altogether.
        mute_share: share of queries, those of lowest objectness, whose advantage is set to 0.
        advantage: ``'reward'``, as published: the gradient flows through the advantage into
            the match cost. ``'policy'``, GRPO's own form: the advantage is a constant that
            weighs log-objectness, and teaches the selection.
        eps: see :func:`group_advantage`.
        shared_exemplars: the reference model is prompted with the step's exemplars, as Algorithm 1
            says; False draws others for it, as the published code does.

    Attributes:
        active: False while supervised training comes first; ``ReferenceModelHook`` sets it.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        reward_weight: float = 0.01,
        kl_weight: float = 0.04,
        mute_share: float = 1 / 3,
        advantage: str = 'reward',
        eps: float = 1e-6,
        shared_exemplars: bool = True,
    ) -> None:
        super().__init__()
        if advantage not in ('reward', 'policy'):
            raise ValueError(f"GRQOLoss.advantage must be 'reward' or 'policy', got {advantage!r}")
        if not 0 <= mute_share < 1:
            raise ValueError(f'GRQOLoss.mute_share must lie in [0, 1), got {mute_share}')
        if reward_weight < 0 or kl_weight < 0:
            raise ValueError(
                'GRQOLoss weights must not be negative, got '
                f'reward_weight={reward_weight}, kl_weight={kl_weight}'
            )
        self.reward_weight = reward_weight
        self.kl_weight = kl_weight
        self.mute_share = mute_share
        self.advantage = advantage
        self.eps = eps
        self.shared_exemplars = shared_exemplars
        self.active = True

    @property
    def differentiates_reward(self) -> bool:
        """Whether the match cost must keep its graph."""
        return self.active and self.advantage == 'reward' and self.reward_weight > 0

    @property
    def needs_reference(self) -> bool:
        """Whether the reference model must run in this step."""
        return self.active and self.kl_weight > 0

    def forward(
        self,
        reward: Tensor,
        has_boxes: Tensor,
        objectness_logits: Tensor,
        reference_logits: Tensor | None,
    ) -> dict[str, Tensor]:
        """Losses (keys with ``loss``, summed by mmengine) and health figures (logged only).

        Args:
            reward: (num_layers, bs, num_queries); of no meaning where an image has no boxes.
            has_boxes: (bs,) bool.
            objectness_logits: (bs, num_queries) at the selected tokens.
            reference_logits: the same shape, from the reference model; None iff
                ``kl_weight`` is 0.
        """
        reward = reward * has_boxes[:, None]
        advantage = mute_last(group_advantage(reward, self.eps), self.mute_share)
        if self.advantage == 'policy':
            # log p_i at (bs, num_queries) serves every layer
            advantage = advantage.detach() * F.logsigmoid(objectness_logits)
        num_layers, *group = reward.shape
        per_layer = 1 / (group[0] * group[1])
        losses = dict(loss_grqo_reward=-self.reward_weight * advantage.sum() * per_layer)

        groups_with_boxes = (has_boxes.sum() * num_layers).clamp(min=1)
        # images without boxes have reward 0 and spread 0: they add nothing to either sum
        spread = reward.detach().std(dim=-1) if group[1] > 1 else reward.new_zeros(num_layers, 1)
        losses['grqo_reward_mean'] = reward.detach().mean(dim=-1).sum() / groups_with_boxes
        losses['grqo_reward_std'] = spread.sum() / groups_with_boxes
        losses['grqo_empty_images'] = 1 - has_boxes.float().mean()
        if reference_logits is not None:
            kl = objectness_kl(objectness_logits, reference_logits).mean()
            losses['loss_grqo_kl'] = self.kl_weight * num_layers * kl
            losses['grqo_kl'] = kl.detach()
        return losses
