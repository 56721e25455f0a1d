"""The fused Swin computes what mmdet's does."""

from functools import partial

import pytest
import torch
from mmdet.models.backbones import SwinTransformer

from mmdet_dino_r1.models.backbones.swin import HIDDEN, FusedSwinTransformer, shift_mask

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def build_pair(**changes):
    """mmdet's and ours, with the same weights; biases and tables that are felt."""
    sizes = dict(embed_dims=8, depths=(2, 2), num_heads=(2, 4), strides=(4, 2), window_size=4)
    cfg = dict(sizes, out_indices=(0, 1), drop_path_rate=0.0) | changes
    mmdets, ours = SwinTransformer(**cfg), FusedSwinTransformer(**cfg)
    generator = torch.Generator().manual_seed(0)
    for parameter in mmdets.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    ours.load_state_dict(mmdets.state_dict())
    return mmdets, ours


# windows that fit; that leave 3 rows and 1 column over; fewer tokens than one window has
@pytest.mark.parametrize('size', [(64, 32), (76, 52), (12, 8)])
@pytest.mark.parametrize('with_cp', [False, True])
def test_outputs_and_gradients_are_mmdets(size, with_cp):
    images, results = torch.randn(2, 3, *size), []
    for model in build_pair(with_cp=with_cp):
        inputs = images.clone().requires_grad_()
        outputs = model(inputs)
        sum((out * out.detach().cos()).sum() for out in outputs).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append((outputs, [inputs.grad, *gradients]))
    (expected, expected_grads), (outputs, grads) = results
    for one, other in zip(outputs, expected, strict=True):
        close(one, other)
    for one, other in zip(grads, expected_grads, strict=True):
        scale = other.abs().max()
        close(one / scale, other / scale)


@pytest.mark.parametrize('training', [False, True])
@torch.no_grad()
def test_without_gradients_too(training):
    """The other way through the attention: the fused kernel takes a bias that does not learn."""
    images, outputs = torch.randn(2, 3, 76, 52), []
    for model in build_pair():
        model.train(training)
        outputs.append(model(images))
    for one, other in zip(*outputs, strict=True):
        close(one, other)


def test_a_mask_made_without_gradients_serves_training():
    shift_mask.cache_clear()
    _, ours = build_pair()
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        ours(images)
    ours(images)[-1].sum().backward()
    assert shift_mask.cache_info().hits > 0


def test_drops_as_mmdets_do():
    """The same random numbers drop the same paths."""
    outputs = []
    for model in build_pair(drop_path_rate=0.5, drop_rate=0.2):
        torch.manual_seed(3)
        outputs.append(model(torch.ones(4, 3, 32, 32))[-1])
    close(outputs[1], outputs[0])


def test_shift_mask_by_hand():
    """One window of 2x2 on a 2x2 image rolled by one: every token comes from another edge."""
    mask = shift_mask(1, 1, 2, 1, torch.device('cpu'))
    assert mask.tolist() == [[[0.0 if i == j else HIDDEN for j in range(4)] for i in range(4)]]
    # of two windows side by side the left one holds an unbroken half, of two rows though
    left, right = shift_mask(1, 2, 2, 1, torch.device('cpu'))
    assert (left == 0).tolist() == [[i // 2 == j // 2 for j in range(4)] for i in range(4)]
    assert (right == 0).tolist() == torch.eye(4, dtype=torch.bool).tolist()


def test_parameters_keep_mmdets_names():
    mmdets, ours = build_pair()
    assert list(mmdets.state_dict()) == list(ours.state_dict())
    assert [n for n, _ in mmdets.named_parameters()] == [n for n, _ in ours.named_parameters()]
