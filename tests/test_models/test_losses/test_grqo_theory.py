"""What docs/grqo_theory.md derives, in problems small enough to solve by hand; its numbers."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.losses import FocalLoss
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_dino_r1.models.losses import (
    BestMatchReward,
    GRQOLoss,
    group_advantage,
    mute_last,
    objectness_kl,
)
from mmdet_dino_r1.models.task_modules import BatchedHungarianAssigner, PromptFocalLossCost

HAS_BOXES = torch.tensor([True])


def numbers(*values: float) -> Tensor:
    """A leaf of double precision."""
    return torch.tensor(values, dtype=torch.double, requires_grad=True)


def kept_sum(reward: Tensor, mute_share: float) -> Tensor:
    """S of the page: the advantages of the kept queries, summed."""
    return mute_last(group_advantage(reward, eps=0.0), mute_share).sum()


def reward_loss(reward: Tensor, reward_weight: float, mute_share: float) -> Tensor:
    """The published loss of one image at one layer, without KL."""
    grqo = GRQOLoss(reward_weight, kl_weight=0, mute_share=mute_share, eps=0.0)
    logits = torch.zeros(1, len(reward), dtype=torch.double)
    return grqo(reward[None, None], HAS_BOXES, logits, None)['loss_grqo_reward']


def policy_losses(
    rewards: list[list[float]], logits: Tensor, mute_share: float, **kwargs
) -> dict[str, Tensor]:
    """The policy form for one image; a row of rewards per layer."""
    grqo = GRQOLoss(mute_share=mute_share, advantage='policy', eps=0.0, **kwargs)
    reference = torch.full((1, len(logits)), -math.log(9), dtype=torch.double)  # q = 0.1
    reward = torch.tensor(rewards, dtype=torch.double)[:, None]
    return grqo(reward, HAS_BOXES, logits[None], reference if grqo.needs_reference else None)


# ------------------------------------------------------------ the published form
def test_nothing_muted_teaches_nothing():
    """Statement 1: not small but 0."""
    reward = numbers(3, 2, 1)
    loss = reward_loss(reward, reward_weight=1.0, mute_share=0)
    loss.backward()
    assert loss.item() == 0
    assert reward.grad.tolist() == [0, 0, 0]


def test_gradient_of_three_queries_by_hand():
    """Statement 2: A = (1, 0, -1), s = 1, S = 1; 1 - 2/3 - 1/2, 1 - 2/3 and -2/3 + 1/2."""
    reward = numbers(3, 2, 1)
    total = kept_sum(reward, 1 / 3)
    total.backward()
    assert total.item() == 1
    torch.testing.assert_close(reward.grad, numbers(-1 / 6, 1 / 3, -1 / 6).detach())

    reward = numbers(3, 2, 1)
    loss = reward_loss(reward, reward_weight=1.8, mute_share=1 / 3)
    loss.backward()
    assert loss.item() == pytest.approx(-0.6)
    torch.testing.assert_close(-reward.grad, numbers(-0.1, 0.2, -0.1).detach())


def test_gradient_of_any_group_is_the_formula():
    """Statement 2, with what follows for its size; 3: which signs, and when they turn."""
    reward = torch.randn(12, dtype=torch.double, requires_grad=True)
    kept = (torch.arange(12) < 8).double()
    total = kept_sum(reward, 1 / 3)
    total.backward()
    with torch.no_grad():
        spread = reward.std()
        advantage = (reward - reward.mean()) / spread
        expected = (kept - 8 / 12 - total * advantage / 11) / spread
    torch.testing.assert_close(reward.grad, expected)
    length = (8 * 4 / 12 - total.detach() ** 2 / 11).sqrt() / spread
    torch.testing.assert_close(reward.grad.norm(), length)

    # S = 0: all kept up, all muted down, by 1 - K/N and K/N
    even = numbers(1, -1, 0, 0, 1, -1)
    kept_sum(even, 1 / 3).backward()
    expected = numbers(1 / 3, 1 / 3, 1 / 3, 1 / 3, -2 / 3, -2 / 3) / even.detach().std()
    torch.testing.assert_close(even.grad, expected.detach())


@pytest.mark.parametrize('correlation', [0.3, 0.6, 0.9])
def test_the_best_kept_query_is_lowered_beyond_a_threshold(correlation):
    """Statement 3: A_j = 0.707 / rho for a third muted, here with rewards of that rho."""
    kept = (torch.arange(900) < 600).double()
    indicator = (kept - kept.mean()) / kept.std()
    noise = torch.randn(900, dtype=torch.double)
    noise -= noise.mean()
    noise -= indicator * (indicator @ noise) / (indicator @ indicator)
    reward = correlation * indicator + math.sqrt(1 - correlation**2) * noise / noise.std()
    reward.requires_grad_()
    kept_sum(reward, 1 / 3).backward()
    advantage = group_advantage(reward.detach(), eps=0.0)
    above = advantage[:600] > math.sqrt(1 / 2 * 899 / 900) / correlation
    assert 0 < above.sum() < 600
    assert torch.equal(reward.grad[:600] < 0, above)
    below = advantage[600:] < -math.sqrt(2 * 899 / 900) / correlation
    assert torch.equal(reward.grad[600:] > 0, below)


def test_neither_better_nor_further_apart_helps():
    """Statement 4: the gradient has no component along (1, ..., 1) nor along the advantages."""
    reward = torch.randn(30, dtype=torch.double, requires_grad=True)
    kept_sum(reward, 1 / 3).backward()
    assert reward.grad.norm() > 0.1
    assert abs(reward.grad.sum()) < 1e-12
    assert abs(reward.grad @ group_advantage(reward.detach())) < 1e-12
    torch.testing.assert_close(kept_sum(3 * reward + 7, 1 / 3), kept_sum(reward, 1 / 3))
    # three times as far apart: the same loss, a third of the gradient
    wide = (3 * reward.detach()).requires_grad_()
    kept_sum(wide, 1 / 3).backward()
    torch.testing.assert_close(wide.grad, reward.grad / 3)


def test_the_loss_is_a_correlation_with_a_bound():
    """Statement 5; the bound is attained by two levels, where the gradient is 0."""
    reward = torch.randn(900, dtype=torch.double)
    kept = (torch.arange(900) < 600).double()
    rho = torch.corrcoef(torch.stack([kept, reward]))[0, 1].item()
    bound = math.sqrt(600 * 300 * 899 / 900)
    assert kept_sum(reward, 1 / 3).item() == pytest.approx(rho * bound)

    levels = (5 * kept - 2).requires_grad_()
    loss = reward_loss(levels, 0.01, 1 / 3)
    loss.backward()
    assert bound == pytest.approx(424.03, abs=0.01)
    assert kept_sum(levels, 1 / 3).item() == pytest.approx(bound)
    assert loss.item() == pytest.approx(-0.0047114, abs=1e-7)
    assert levels.grad.abs().max() < 1e-12
    assert kept_sum(-levels, 1 / 3).item() == pytest.approx(-bound)
    # by hand for three: s^2 = 1/3, S = 2/3 / s
    assert kept_sum(numbers(1, 1, 0), 1 / 3).item() == pytest.approx(2 / math.sqrt(3))


def test_descent_sorts_rewards_by_place_and_gains_none():
    """Statements 3 to 5: kept 1, 0 and muted 2, -1 end on two levels about the same mean."""
    reward = numbers(1, 0, 2, -1)
    assert kept_sum(reward, 0.5).item() == 0
    for _ in range(200):
        (slope,) = torch.autograd.grad(reward_loss(reward, 4.0, 0.5), reward)
        reward = (reward.detach() - 0.1 * slope).requires_grad_()
    end = reward.detach()
    assert end.mean().item() == pytest.approx(0.5, abs=1e-12)
    assert kept_sum(end, 0.5).item() == pytest.approx(math.sqrt(3), abs=1e-3)
    # the spread of the start: 0.5 + and - sqrt(5) / 2; steps of finite length widen it a little
    level = math.sqrt(5) / 2
    torch.testing.assert_close(
        end - 0.5, numbers(level, level, -level, -level).detach(), rtol=0.1, atol=0
    )


# ---------------------------------------------------------------- through the min
def test_reward_reaches_the_nearest_object_and_pulls_the_background():
    """Statement 7: three queries, two objects, -0.6 S; query 1 is matched with nothing."""
    cost = torch.tensor(
        [[1.0, 9.0], [2.0, 9.0], [9.0, 3.0]], dtype=torch.double, requires_grad=True
    )
    reward_loss(BestMatchReward()(cost), reward_weight=1.8, mute_share=1 / 3).backward()
    expected = [[-0.1, 0.0], [0.2, 0.0], [0.0, -0.1]]
    torch.testing.assert_close(cost.grad, torch.tensor(expected, dtype=torch.double))
    assert BatchedHungarianAssigner.match([cost[None]]).query.tolist() == [0, 2]


def test_reward_and_focal_loss_disagree_about_a_background_query():
    """Statement 7: the match cost lifts its score for the class, the focal loss lowers it."""
    logits = torch.tensor([[2.0, -2.0], [0.0, -2.0], [-2.0, -2.0]], requires_grad=True)
    target = InstanceData(positive_maps=torch.tensor([[1.0, 0.0]]))
    cost = PromptFocalLossCost(weight=2.0)(InstanceData(scores=logits), target)
    assert BatchedHungarianAssigner.match([cost[None]]).query.tolist() == [0]
    loss = reward_loss(BestMatchReward()(cost).double(), reward_weight=1.0, mute_share=1 / 3)
    (by_reward,) = torch.autograd.grad(loss, logits)
    focal = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25)
    labels = torch.tensor([0, 2, 2])  # 2: background
    (by_focal,) = torch.autograd.grad(focal(logits, labels), logits)
    assert by_reward[1, 0] < 0 < by_reward[1, 1]
    assert by_focal[1, 0] > 0 and by_focal[1, 1] > 0


# ----------------------------------------------------------------- the policy form
@pytest.mark.parametrize(
    'mute_share, expected', [(0, [-0.1, -0.05, 0.3]), (1 / 3, [-0.1, -0.05, 0.0])]
)
def test_policy_gradient_by_hand(mute_share, expected):
    """Statement 8: -0.2 (A + A') (1 - p), A = (1, 0, -1), A' = (0, 1, -1), 1 - p = 1/2 1/4 3/4."""
    logits = numbers(0, math.log(3), -math.log(3))
    rewards = [[3.0, 2.0, 1.0], [2.0, 3.0, 1.0]]
    losses = policy_losses(rewards, logits, mute_share, reward_weight=0.6, kl_weight=0)
    losses['loss_grqo_reward'].backward()
    torch.testing.assert_close(logits.grad, numbers(*expected).detach())


def test_policy_descent_ranks_objectness_by_reward():
    """Statement 8: without muting; the odds of what is below average fall without end."""
    logits = numbers(0, 0, 0, 0)
    for _ in range(50):
        losses = policy_losses([[1.0, 3.0, 2.0, 4.0]], logits, 0, reward_weight=1.0, kl_weight=0)
        (slope,) = torch.autograd.grad(losses['loss_grqo_reward'], logits)
        logits = (logits.detach() - slope).requires_grad_()
    assert logits.argsort().tolist() == [0, 2, 1, 3]
    assert logits[0] < logits[2] < 0 < logits[1] < logits[3]
    # A = -1.5 / sqrt(5/3), 1 - p at least 1/2: so far in 50 steps at the least
    assert logits[0].item() < -50 * 1.5 / math.sqrt(5 / 3) / 4 / 2


def test_policy_and_kl_balance_at_a_ratio():
    """Statement 9: p = q / (1 - A alpha / beta), reached by descent from p = q = 0.1."""
    rewards = [[1.0, 3.0, 2.0, 4.0]]
    logits = torch.full((4,), -math.log(9), dtype=torch.double, requires_grad=True)
    for _ in range(60):
        (slope,) = torch.autograd.grad(sum_of(policy_losses(rewards, logits, 0)), logits)
        logits = (logits.detach() - 50 * slope).requires_grad_()
    advantage = torch.tensor([-1.5, 0.5, -0.5, 1.5], dtype=torch.double) / math.sqrt(5 / 3)
    balance = 0.1 / (1 - advantage / 4)
    torch.testing.assert_close(logits.detach().sigmoid(), balance, rtol=1e-6, atol=0)


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """What the optimiser sees."""
    return losses['loss_grqo_reward'] + losses['loss_grqo_kl']


# -------------------------------------------------------------------------- the KL
def test_kl_resists_a_fall_more_than_a_rise():
    """Statement 10: (1 - p)(1 - q/p) at q = 0.2 for p = 0.8, 0.2, 0.05 and 0.0001."""
    p = torch.tensor([0.8, 0.2, 0.05, 0.0001], dtype=torch.double)
    logits = torch.logit(p).requires_grad_()
    reference = torch.logit(torch.full_like(p, 0.2))
    (slope,) = torch.autograd.grad(objectness_kl(logits, reference).sum(), logits)
    expected = numbers(0.2 * 0.75, 0.0, 0.95 * -3, 0.9999 * -1999).detach()
    torch.testing.assert_close(slope, expected)


def test_kl_is_stiffer_than_that_of_a_coin():
    """Statement 10: curvature (1 - p)^2 where p = q; a Bernoulli's has p (1 - p)."""
    z = torch.logit(torch.tensor(0.01, dtype=torch.double))
    curvature = torch.autograd.functional.hessian(lambda x: objectness_kl(x, z), z)
    assert curvature.item() == pytest.approx(0.99**2)

    def coin(x: Tensor) -> Tensor:
        p, q = x.sigmoid(), z.sigmoid()
        return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()

    ratio = curvature / torch.autograd.functional.hessian(coin, z)
    assert ratio.item() == pytest.approx(99)
