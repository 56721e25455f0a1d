"""Strict load; what it says of real runs is tried in test_checks/test_run_failures.py."""

import torch
from mmdet.registry import HOOKS
from mmengine.config import Config

from mmdet_dino_r1.checks.config_keys import misspelt_keys
from mmdet_dino_r1.engine.hooks.strict_load_hook import StrictLoadHook, misfits


def test_the_former_name_still_builds_it():
    cfg = Config(dict(default_hooks=dict(checkpoint_fit=dict(type='CheckpointFitHook'))))
    assert misspelt_keys(cfg) == []
    assert type(HOOKS.build(cfg.default_hooks.checkpoint_fit)) is StrictLoadHook


def test_misfits():
    own = dict(a=torch.zeros(2), b=torch.zeros(3), c=torch.zeros(1))
    given = dict(a=torch.zeros(2), b=torch.zeros(4), d=torch.zeros(1))
    assert misfits(own, given) == [
        'b: checkpoint (4,), model (3,)',
        'c: not in the checkpoint',
        'd: not in the model',
    ]
