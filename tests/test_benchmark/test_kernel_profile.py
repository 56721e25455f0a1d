"""What the card did, from kernels written by hand; the operators of a real step on the CPU."""

import pytest
import torch

from mmdet_dino_r1.benchmark.contenders import DINO_R1, build_contender
from mmdet_dino_r1.benchmark.kernel_profile import Kernel, kernel_figures, profile_steps


def test_busy_share_and_gaps_by_hand():
    kernels = [
        Kernel(3000.0, 4000.0, 'gemm'),
        Kernel(0.0, 1000.0, 'gemm'),
        Kernel(500.0, 1500.0, 'copy'),  # beside the one before, on another stream
        Kernel(600.0, 700.0, 'inside'),
        Kernel(4500.0, 5000.0, 'a | b'),
    ]
    figures = kernel_figures(kernels, steps=2)
    assert figures['kernels a step'] == 2.5
    assert figures['span ms a step'] == 2.5
    assert figures['busy ms a step'] == 1.5
    assert figures['busy share'] == 0.6
    assert figures['longest gaps'] == [
        {'ms': 1.5, 'before the kernel': 'gemm'},
        {'ms': 0.5, 'before the kernel': 'a / b'},
    ]
    first = figures['heaviest kernels'][0]
    assert first == {
        'kernel': 'gemm',
        'share': pytest.approx(2 / 3.6),
        'ms a step': 1.0,
        'calls a step': 1.0,
    }


def test_no_kernel_at_all():
    with pytest.raises(ValueError, match='saw nothing'):
        kernel_figures([], steps=1)


def test_the_heaviest_operators_without_a_card(cfg, workload):
    contender = build_contender(DINO_R1, cfg, torch.device('cpu'), torch.float32, False)
    figures = profile_steps(contender, workload, steps=1)
    assert figures['card'] == 'none: there is no CUDA device'
    shares = [row['share'] for row in figures['heaviest operators']]
    assert len(shares) == 10 and shares == sorted(shares, reverse=True) and sum(shares) < 1
