"""What the card did, from kernels written by hand; the operators of a real step on the CPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from mmdet_dino_r1.lab.benchmark import kernel_profile
from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, build_contender
from mmdet_dino_r1.lab.benchmark.kernel_profile import kernel_figures, profile_steps


def test_busy_share_and_gaps_by_hand():
    kernels = [
        (3000.0, 4000.0, 'gemm'),
        (0.0, 1000.0, 'gemm'),
        (500.0, 1500.0, 'copy'),  # beside the one before, on another stream
        (600.0, 700.0, 'inside'),
        (4500.0, 5000.0, 'a | b'),
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


def test_what_the_profiler_says_of_a_card(monkeypatch, workload):
    """Kernels and the calls of the runtime, told apart from spans that only mark."""

    def event(name, start, end, kind):
        return SimpleNamespace(
            name=name, device_type=kind, time_range=SimpleNamespace(start=start, end=end)
        )

    events = [
        event('Optimizer.step#AdamW.step', 0.0, 9000.0, DeviceType.CUDA),
        event('gemm', 0.0, 1000.0, DeviceType.CUDA),
        event('Memcpy HtoD (Pageable -> Device)', 3000.0, 4000.0, DeviceType.CUDA),
        event('cudaStreamSynchronize', 0.0, 5.0, DeviceType.CPU),
        event('cudaLaunchKernel', 5.0, 6.0, DeviceType.CPU),
    ]

    @contextmanager
    def profile(activities):
        assert activities == [kernel_profile.ProfilerActivity.CUDA]
        yield SimpleNamespace(events=lambda: events)

    monkeypatch.setattr(kernel_profile, 'profile', profile)
    times = iter([0.0, 0.02, 1.0])
    taken = []
    contender = SimpleNamespace(
        clock=SimpleNamespace(restart=lambda on: None, now=lambda: next(times)),
        device=torch.device('cuda'),
        step=taken.append,
    )
    figures = profile_steps(contender, workload, steps=2)
    assert len(taken) == 4
    assert figures['kernels a step'] == 1 and figures['busy share'] == 0.5
    assert figures['calls a step'] == {
        'Memcpy HtoD (Pageable -> Device)': 0.5,
        'cudaStreamSynchronize': 0.5,
    }
    assert figures['seconds a step'] == 0.01
    assert figures['busy share without the profiler'] == pytest.approx(0.1)
