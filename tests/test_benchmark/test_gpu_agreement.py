"""The comparison of two devices, of which there is one here."""

import pytest
import torch

from mmdet_dino_r1.benchmark.gpu_agreement import (
    BOUNDS,
    Said,
    largest_differences,
    listen,
    small_config,
    train_in_half,
    true_float32,
)

CPU = torch.device('cpu')


def test_differences_by_hand():
    one = Said(dict(boxes=torch.tensor([1.0, -4.0]), rare=torch.tensor(1e-6)), {}, {})
    other = Said(dict(boxes=torch.tensor([1.0, -3.0]), rare=torch.tensor(2e-6)), {}, {})
    one, other = (of._replace(losses=of.outputs, gradients=of.outputs) for of in (one, other))
    # that of `rare` is relative to a thousandth of the largest value
    assert largest_differences(one, other)['losses'] == dict(difference=0.25, worst='boxes')


def test_nothing_is_left_to_chance():
    cfg = small_config()
    first, second = listen(cfg, CPU), listen(cfg, CPU)
    assert set(largest_differences(first, second)) == set(BOUNDS)
    assert all(of['difference'] == 0 for of in largest_differences(first, second).values())
    assert len(first.gradients) > 100 and 'loss_grqo_reward' in first.losses
    boxes = first.outputs['boxes']
    assert boxes.std() > 0.01, 'fresh weights would move no box'

    half = train_in_half(cfg, CPU, 'bfloat16')
    assert half['fused'] and half['finite'] and half['moved'] and half['scale'] == 1
    assert half['losses'][0] == pytest.approx(float(first.losses['loss']), rel=0.05)


def test_tf32_is_as_it_was_afterwards():
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    assert any(before), 'PyTorch takes TF32 for convolutions'
    with pytest.raises(RuntimeError), true_float32():
        assert not any(place.allow_tf32 for place in places)
        raise RuntimeError
    assert [place.allow_tf32 for place in places] == before
