"""GRQO's share of the gradient, by hand and without a trace."""

from types import SimpleNamespace

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine.logging import MessageHub

from mmdet_dino_r1.engine.hooks import GradientShareHook
from mmdet_dino_r1.engine.hooks.gradient_share_hook import gradient_share, split_losses


def test_share_and_direction_by_hand():
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    unused = torch.nn.Parameter(torch.zeros(1))
    share, cosine = gradient_share((3 * a).sum(), (3 * a + 4 * b).sum(), [a, b, unused])
    assert share == pytest.approx(3 / 5)
    assert cosine == pytest.approx(3 / 5)
    assert gradient_share((4 * a - 3 * b).sum(), (3 * a + 4 * b).sum(), [a, b])[1] == pytest.approx(
        0
    )


def test_only_optimised_terms_count():
    losses = {'loss_cls': 1.0, 'd0.loss_iou': 2.0, 'loss_grqo_kl': 4.0, 'grqo_kl': 8.0}
    assert split_losses(losses) == (4.0, 3.0)


def test_leaves_no_trace_and_logs():
    model = build_tiny(dict(reward_weight=1.0)).train()
    model.reference_model.refresh(model)
    images, samples = make_batch(TWO_IMAGES)
    model.data_preprocessor.forward = lambda data, training: data
    hub = MessageHub.get_instance('gradient_share_test')
    runner = SimpleNamespace(model=model, iter=50, message_hub=hub)
    before = torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hook = GradientShareHook(interval=50)
    hook.before_train_iter(runner, 0, dict(inputs=images, data_samples=samples))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    share = hub.get_scalar('train/grqo_grad_share').current()
    assert 0 < share < 1
    runner.iter = 51
    hook.before_train_iter(runner, 0, None)  # not due: touches nothing
