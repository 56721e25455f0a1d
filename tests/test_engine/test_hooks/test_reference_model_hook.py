"""When GRQO starts and the reference is refreshed, in both kinds of loop."""

from types import SimpleNamespace

import pytest
from conftest import build_tiny
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from mmdet_dino_r1.engine.hooks import ReferenceModelHook


def play(hook, policy, iterations, per_epoch=4, first=0, loop=IterBasedTrainLoop):
    """Call the hook as a loop does; return the iterations with a refresh, and with GRQO.

    Args:
        first: the iteration a run is resumed at; an epoch-based loop begins that epoch anew.
    """
    runner = SimpleNamespace(
        model=policy,
        train_dataloader=range(per_epoch),
        train_loop=loop.__new__(loop),
        iter=first,
        epoch=0,
    )
    refreshed, active = [], []
    policy.reference_model.refresh = lambda p: (
        refreshed.append(runner.iter),
        setattr(policy.reference_model, '_snapshot', nn.Identity()),
    )
    hook.before_train(runner)
    for step in range(iterations - first):
        runner.iter, batch_idx = first + step, first + step
        if loop is EpochBasedTrainLoop:
            runner.epoch, batch_idx = first // per_epoch + step // per_epoch, step % per_epoch
        hook.before_train_iter(runner, batch_idx)
        if policy.bbox_head.loss_grqo.active:
            active.append(runner.iter)
    return refreshed, active


@pytest.mark.parametrize('loop', [IterBasedTrainLoop, EpochBasedTrainLoop])
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
def test_schedule(args, refreshed, first_active, loop):
    got, active = play(ReferenceModelHook(**args), build_tiny(dict()), 12, loop=loop)
    assert got == refreshed
    assert active == list(range(first_active, 12))


def test_resume_within_an_epoch_takes_a_snapshot_at_once():
    got, active = play(ReferenceModelHook(), build_tiny(dict()), 12, first=6)
    assert got == [6, 8] and active[0] == 6


def test_epochs_that_begin_anew_are_counted_by_the_loop():
    """Resumed at 6, in the second epoch of four steps: it takes the steps 6 to 9."""
    hook = ReferenceModelHook(start_epoch=2)
    got, active = play(hook, build_tiny(dict()), 14, first=6, loop=EpochBasedTrainLoop)
    assert got == [10] and active == [10, 11, 12, 13]
    got, _ = play(ReferenceModelHook(), build_tiny(dict()), 14, first=6, loop=EpochBasedTrainLoop)
    assert got == [6, 10]


def test_no_refresh_without_kl():
    got, active = play(ReferenceModelHook(), build_tiny(dict(kl_weight=0)), 9)
    assert got == [] and len(active) == 9


def test_supervised_model_is_left_alone():
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    runner = SimpleNamespace(
        model=build_tiny(), train_dataloader=range(4), train_loop=loop, iter=0, epoch=0
    )
    hook = ReferenceModelHook()
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    assert not runner.model.reference_model.is_ready


def test_bad_interval_is_named():
    with pytest.raises(ValueError, match='interval must be at least 1'):
        ReferenceModelHook(interval=0)
