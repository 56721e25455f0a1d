"""Steps of several batches, and averaged weights (EMA), in one process."""

from __future__ import annotations

import shutil

import torch
from mmengine.hooks import EMAHook

from mmdet_dino_r1.engine.bank_builder import weights_fingerprint
from test_distributed import cases


def steps_of(folder, name, order, accumulative_counts):
    """Gradient of the first step, on the given images at once or one after the other."""
    split = cases.write_split(folder / 'shapes', name, order)
    batch_size = len(order) // accumulative_counts
    cfg = cases.plain_cfg(folder / 'shapes', folder / name, split, batch_size, by_epoch=False)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=accumulative_counts)
    cfg.optim_wrapper.accumulative_counts = accumulative_counts
    torch.manual_seed(0)
    cases.train(cases.without_validation(cfg))
    notes = torch.load(folder / name / 'rank0.pt', weights_only=False)
    assert notes['stepped'] == [False] * (accumulative_counts - 1) + [True]
    return notes


def test_accumulated_batches_that_repeat_are_one_batch_twice_as_large(tiny_shapes, tmp_path):
    """Apart from the prompts and divisors, which are a batch's own: here they are the same."""
    shutil.copytree(tiny_shapes, tmp_path / 'shapes')
    one = steps_of(tmp_path, 'once', [11, 11], 1)
    two = steps_of(tmp_path, 'in_two', [11, 11], 2)
    for wanted, gradient in zip(one['gradients'][0], two['gradients'][1], strict=True):
        largest = max(float(wanted.abs().max()), 1e-2)
        assert float((gradient - wanted).abs().max()) <= 1e-5 * largest


def test_averaged_weights_validate_and_the_policy_is_the_reference(tiny_shapes, tmp_path):
    def cfg_for(name):
        shutil.copytree(tiny_shapes, tmp_path / 'shapes', dirs_exist_ok=True)
        split = cases.write_split(tmp_path / 'shapes', 'averaged', [0, 1], lambda _: 9)
        cfg = cases.plain_cfg(tmp_path / 'shapes', tmp_path / name, split, 1, by_epoch=False)
        cfg.optim_wrapper.optimizer.lr = 0.01
        cfg.train_cfg.update(max_iters=4, val_interval=4)
        cfg.default_hooks.checkpoint.interval = 2
        cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.5))
        return cfg

    def ema_of(runner):
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
        return hook.ema_model.module

    whole = cases.train(cfg_for('averaged'))
    notes = torch.load(tmp_path / 'averaged' / 'rank0.pt', weights_only=False)
    averaged = weights_fingerprint(ema_of(whole))
    assert averaged != weights_fingerprint(whole.model)
    assert notes['banks'][0]['made_by'] == averaged
    # an epoch has two steps: copied from the policy at its start, not from the average
    same = [r == p for r, p in zip(notes['references'], notes['policies'], strict=True)]
    assert same == [True, False, True, False]
    assert not ema_of(whole).reference_model.is_ready

    cfg = cfg_for('resumed')
    cfg.load_from, cfg.resume = str(tmp_path / 'averaged' / 'iter_2.pth'), True
    resumed = cases.train(cfg)
    again = torch.load(tmp_path / 'resumed' / 'rank0.pt', weights_only=False)
    assert weights_fingerprint(resumed.model) == weights_fingerprint(whole.model)
    assert torch.equal(again['banks'][0]['rows'], notes['banks'][0]['rows'])
    assert again['references'] == notes['references'][2:]
