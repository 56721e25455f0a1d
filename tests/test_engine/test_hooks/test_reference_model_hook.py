"""When GRQO starts and the reference is refreshed, in both kinds of loop."""

from types import SimpleNamespace

import pytest
from conftest import build_tiny
from torch import nn

from mmdet_dino_r1.engine.hooks import ReferenceModelHook


def play(hook, policy, iterations, per_epoch=4, first=0):
    """Call the hook as a loop does; return the iterations with a refresh, and with GRQO."""
    runner = SimpleNamespace(model=policy, train_dataloader=range(per_epoch), iter=first)
    refreshed, active = [], []
    policy.reference_model.refresh = lambda p: (
        refreshed.append(runner.iter),
        setattr(policy.reference_model, '_snapshot', nn.Identity()),
    )
    hook.before_train(runner)
    for runner.iter in range(first, iterations):
        hook.before_train_iter(runner, 0)
        if policy.bbox_head.loss_grqo.active:
            active.append(runner.iter)
    return refreshed, active


@pytest.mark.parametrize(
    'args, refreshed, first_active',
    [
        (dict(), [0, 4, 8], 0),
        (dict(interval=2), [0, 8], 0),
        (dict(start_epoch=1), [4, 8], 4),
        (dict(interval=5, by_epoch=False), [0, 5, 10], 0),
        # GRQO begins within an interval: a snapshot is due at once
        (dict(start_iter=6), [6, 8], 6),
        (dict(start_iter=6, start_epoch=2), [8], 8),
    ],
)
def test_schedule(args, refreshed, first_active):
    got, active = play(ReferenceModelHook(**args), build_tiny(dict()), 12)
    assert got == refreshed
    assert active == list(range(first_active, 12))


def test_resume_within_an_epoch_takes_a_snapshot_at_once():
    got, active = play(ReferenceModelHook(), build_tiny(dict()), 12, first=6)
    assert got == [6, 8] and active[0] == 6


def test_no_refresh_without_kl():
    got, active = play(ReferenceModelHook(), build_tiny(dict(kl_weight=0)), 9)
    assert got == [] and len(active) == 9


def test_supervised_model_is_left_alone():
    runner = SimpleNamespace(model=build_tiny(), train_dataloader=range(4), iter=0)
    hook = ReferenceModelHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert not runner.model.reference_model.is_ready


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match='interval must be at least 1'):
        ReferenceModelHook(interval=0)
