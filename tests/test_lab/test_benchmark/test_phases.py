from types import SimpleNamespace

import pytest
import torch

from mmdet_dino_r1.lab.benchmark.phases import PhaseClock


class FakeClock(PhaseClock):
    """Time passes only when it is told to."""

    def __init__(self):
        super().__init__(torch.device('cpu'))
        self.time = 100.0

    def now(self):
        return self.time

    def work(self, seconds):
        self.time += seconds


@pytest.fixture
def clock():
    return FakeClock()


def test_an_inner_phase_is_taken_off_the_outer_ones(clock):
    with clock.phase('a'):
        clock.work(1)
        with clock.phase('b'):
            clock.work(2)
            with clock.phase('c'):
                clock.work(4)
            clock.work(8)
        with clock.phase('c'):
            clock.work(16)
        clock.work(32)
    clock.work(64)  # in no phase
    with clock.phase('a'):
        clock.work(128)
    assert clock.seconds == dict(a=161, b=10, c=20)


def test_a_phase_inside_itself_counts_once(clock):
    with clock.phase('a'), clock.phase('a'):
        clock.work(3)
    assert clock.seconds == dict(a=3)


def test_a_watched_method_is_a_phase_and_returns_what_it_returned(clock):
    owner = SimpleNamespace(add=lambda a, b=0: (clock.work(5), a + b)[1])
    clock.watch(owner, 'add', 'adding')
    with clock.phase('outer'):
        clock.work(1)
        assert owner.add(2, b=3) == 5
    assert clock.seconds == dict(outer=1, adding=5)


def test_switched_off_it_measures_nothing_until_it_starts_again(clock):
    clock.restart(on=False)
    with clock.phase('a'):
        clock.work(1)
    assert not clock.seconds
    clock.restart()
    with clock.phase('a'):
        clock.work(2)
    assert clock.seconds == dict(a=2)
