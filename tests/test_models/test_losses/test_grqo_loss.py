"""GRQO by hand, by invariants and by finite differences."""

import math

import pytest
import torch

from mmdet_dino_r1.models.losses import GRQOLoss, group_advantage, mute_last, objectness_kl


def test_advantage_by_hand():
    # mean 2, standard deviation (over n - 1) 1
    torch.testing.assert_close(
        group_advantage(torch.tensor([1.0, 2.0, 3.0]), eps=0.0), torch.tensor([-1.0, 0.0, 1.0])
    )
    # mean 2, deviations -2 0 0 2, variance 8 / 3
    expected = torch.tensor([-2.0, 0, 0, 2.0]) / math.sqrt(8 / 3)
    torch.testing.assert_close(
        group_advantage(torch.tensor([0.0, 2.0, 2.0, 4.0]), eps=0.0), expected
    )


def test_advantage_of_each_group_is_its_own():
    rewards = torch.randn(2, 3, 7)
    whole = group_advantage(rewards)
    torch.testing.assert_close(whole[1, 2], group_advantage(rewards[1, 2]))


def test_advantage_ignores_shift_and_positive_scale():
    reward = torch.randn(3, 11, dtype=torch.double)
    torch.testing.assert_close(
        group_advantage(5 * reward - 7, eps=0.0), group_advantage(reward, eps=0.0)
    )


def test_whole_group_sums_to_zero_with_zero_gradient():
    """The mean advantage of a whole group teaches nothing."""
    reward = torch.randn(2, 30, dtype=torch.double, requires_grad=True)
    total = group_advantage(reward).sum()
    total.backward()
    assert abs(total.item()) < 1e-12
    assert reward.grad.abs().max() < 1e-12


@pytest.mark.parametrize('reward', [torch.full((1, 5), 0.3), torch.randn(1, 1)])
def test_equal_rewards_and_single_query_give_zero_and_no_gradient(reward):
    reward = reward.clone().requires_grad_()
    advantage = group_advantage(reward)
    advantage.sum().backward()
    assert torch.equal(advantage, torch.zeros_like(advantage))
    assert torch.equal(reward.grad, torch.zeros_like(reward))


def test_mute_last_third():
    muted = mute_last(torch.ones(2, 900), 1 / 3)
    assert muted.sum(dim=1).tolist() == [600, 600]
    assert muted[:, :600].all() and not muted[:, 600:].any()
    assert mute_last(torch.ones(100), 1 / 3).sum() == 67  # 33 of 100 muted
    assert mute_last(torch.ones(100), 0.0).sum() == 100


def test_kl_by_hand():
    # p = 1/2 (logit 0), q = 3/4 (logit log 3): 1.5 - log 1.5 - 1
    kl = objectness_kl(torch.tensor(0.0), torch.tensor(math.log(3)))
    assert kl.item() == pytest.approx(1.5 - math.log(1.5) - 1, abs=1e-7)
    same = torch.randn(9)
    assert torch.equal(objectness_kl(same, same.clone()), torch.zeros(9))
    assert (objectness_kl(same, torch.randn(9)) > 0).all()


def test_kl_teaches_the_policy_only():
    logits = torch.randn(4, dtype=torch.double, requires_grad=True)
    reference = torch.randn(4, dtype=torch.double, requires_grad=True)
    objectness_kl(logits, reference).sum().backward()
    assert reference.grad is None
    # d/dx of q/p - log(q/p) - 1 with p = sigmoid(x): (1 - p)(1 - q/p)
    p, q = logits.detach().sigmoid(), reference.detach().sigmoid()
    torch.testing.assert_close(logits.grad, (1 - p) * (1 - q / p))


def test_kl_teaches_in_single_precision():
    """In the precision of a training, from ratios near 1 to e^19."""
    logits = torch.tensor([3.0, 0.0, -1.0, -6.0, -19.0], requires_grad=True)
    reference = torch.tensor([2.99, -0.5, 1.0, 2.0, 0.5])
    objectness_kl(logits, reference).sum().backward()
    p, q = logits.detach().double().sigmoid(), reference.double().sigmoid()
    torch.testing.assert_close(logits.grad.double(), (1 - p) * (1 - q / p), rtol=1e-4, atol=1e-9)


def test_gradients_against_finite_differences():
    reward = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: mute_last(group_advantage(r), 1 / 3), reward)
    reference = torch.randn(6, dtype=torch.double)
    logits = torch.randn(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: objectness_kl(x, reference), logits)


def test_loss_by_hand_reward_mode():
    """Two layers, one image, three queries of which the last is muted."""
    loss = GRQOLoss(reward_weight=0.5, kl_weight=0.1, mute_share=1 / 3, eps=0.0)
    reward = torch.tensor([[[1.0, 2.0, 3.0]], [[6.0, 4.0, 2.0]]])  # advantages -1 0 1 and 1 0 -1
    logits, reference = torch.zeros(1, 3), torch.full((1, 3), math.log(3))
    result = loss(reward, torch.tensor([True]), logits, reference)
    # kept: -1 + 0 in layer 0, 1 + 0 in layer 1
    assert result['loss_grqo_reward'].item() == pytest.approx(0.0, abs=1e-7)
    kl = 1.5 - math.log(1.5) - 1
    assert result['grqo_kl'].item() == pytest.approx(kl, abs=1e-6)
    assert result['loss_grqo_kl'].item() == pytest.approx(0.1 * 2 * kl, abs=1e-6)
    first = loss(reward[:1], torch.tensor([True]), logits, reference)
    assert first['loss_grqo_reward'].item() == pytest.approx(-0.5 * (-1 + 0) / 3)
    assert result['grqo_reward_mean'].item() == pytest.approx((2 + 4) / 2)
    assert result['grqo_reward_std'].item() == pytest.approx((1 + 2) / 2)


def test_loss_by_hand_policy_mode():
    loss = GRQOLoss(reward_weight=0.5, kl_weight=0, mute_share=0, advantage='policy', eps=0.0)
    reward = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    logits = torch.tensor([[0.0, 5.0, math.log(3)]], requires_grad=True)
    result = loss(reward, torch.tensor([True]), logits, None)
    # -0.5 / 3 * (-1 * log 1/2 + 0 + 1 * log 3/4)
    expected = -0.5 / 3 * (math.log(2) + math.log(0.75))
    assert result['loss_grqo_reward'].item() == pytest.approx(expected, abs=1e-6)
    assert 'loss_grqo_kl' not in result
    result['loss_grqo_reward'].backward()
    assert reward.grad is None, 'the advantage is a constant in policy mode'
    assert logits.grad[0, 0] > 0 > logits.grad[0, 2], 'worse queries become less likely'


def test_published_loss_raises_kept_and_lowers_muted_rewards():
    """What the muting does: descend the loss on the rewards themselves."""
    reward = torch.randn(1, 4, 900, requires_grad=True)
    loss = GRQOLoss(kl_weight=0)(reward, torch.ones(4, dtype=torch.bool), torch.zeros(4, 900), None)
    loss['loss_grqo_reward'].backward()
    step = -reward.grad
    assert step[..., :600].mean() > 0 > step[..., 600:].mean()


def test_image_without_boxes_has_no_advantage():
    loss = GRQOLoss(kl_weight=0)
    reward = torch.randn(1, 2, 9, requires_grad=True)
    result = loss(reward, torch.tensor([True, False]), torch.zeros(2, 9), None)
    result['loss_grqo_reward'].backward()
    assert reward.grad[0, 0].abs().sum() > 0
    assert torch.equal(reward.grad[0, 1], torch.zeros(9))
    alone = loss(reward[:, :1], torch.tensor([True]), torch.zeros(1, 9), None)
    # the mean is over all images, the empty one included
    torch.testing.assert_close(result['loss_grqo_reward'], alone['loss_grqo_reward'] / 2)
    assert result['grqo_empty_images'].item() == 0.5
    torch.testing.assert_close(result['grqo_reward_mean'], alone['grqo_reward_mean'])


def test_only_weighted_terms_are_optimised():
    """mmengine sums the keys that contain 'loss'."""
    result = GRQOLoss()(
        torch.randn(2, 1, 9), torch.tensor([True]), torch.zeros(1, 9), torch.zeros(1, 9)
    )
    assert {k for k in result if 'loss' in k} == {'loss_grqo_reward', 'loss_grqo_kl'}
    assert {k for k in result if 'loss' not in k} == {
        'grqo_reward_mean',
        'grqo_reward_std',
        'grqo_empty_images',
        'grqo_kl',
    }


@pytest.mark.parametrize(
    'bad',
    [dict(advantage='rewards'), dict(mute_share=1.0), dict(kl_weight=-1), dict(mute_share=-0.1)],
)
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GRQOLoss(**bad)


def test_half_precision_logits_stay_finite():
    logits = torch.tensor([-60.0, 60.0, 0.0])
    assert torch.isfinite(objectness_kl(logits, logits + 1)).all()
