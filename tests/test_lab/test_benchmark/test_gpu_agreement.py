"""The comparison of two devices, of which there is one here."""

import pytest
import torch

from mmdet_dino_r1.lab.benchmark.gpu_agreement import (
    BOUNDS,
    WORKLOAD,
    largest_differences,
    listen,
    small_config,
    small_model,
    take_steps,
    true_float32,
)
from mmdet_dino_r1.utils.compat import torch_version

CPU = torch.device('cpu')


def test_differences_by_hand():
    values = dict(boxes=torch.tensor([1.0, -4.0]), rare=torch.tensor(1e-6))
    others = dict(boxes=torch.tensor([1.0, -3.0]), rare=torch.tensor(2e-6))
    one, other = dict.fromkeys(BOUNDS, values), dict.fromkeys(BOUNDS, others)
    # that of `rare` is relative to a thousandth of the largest value
    assert largest_differences(one, other)['losses'] == dict(difference=0.25, worst='boxes')
    others['rare'] = torch.tensor(torch.nan)
    assert largest_differences(one, other)['losses'] == dict(difference=torch.inf, worst='rare')


def test_nothing_is_left_to_chance():
    cfg = small_config()
    first, second = listen(cfg, CPU), listen(cfg, CPU)
    assert set(largest_differences(first, second)) == set(BOUNDS)
    assert all(of['difference'] == 0 for of in largest_differences(first, second).values())
    assert len(first['gradients']) > 100 and 'loss_grqo_reward' in first['losses']
    assert first['outputs']['boxes'].std() > 0.01, 'fresh weights would move no box'

    batches = [WORKLOAD.training_batch() for _ in range(2)]
    row = take_steps(small_model(cfg, CPU).model.train(), cfg, 'bfloat16', batches)
    assert row['finite'] and row['scale'] == 1
    assert row['fused AdamW'] == (torch_version() >= (2, 4)), 'on a CPU'
    assert row['first loss'] == pytest.approx(float(first['losses']['loss']), rel=0.05)
    assert row['last loss'] != row['first loss'], 'the same batch: the weights moved'


def test_tf32_is_as_it_was_afterwards():
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    assert any(before), 'PyTorch takes TF32 for convolutions'
    with pytest.raises(RuntimeError), true_float32():
        assert not any(place.allow_tf32 for place in places)
        raise RuntimeError
    assert [place.allow_tf32 for place in places] == before
