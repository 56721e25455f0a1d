"""Strict load; what it says of real runs is tried in test_checks/test_run_failures.py."""

import pytest
import torch
from conftest import build_tiny
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.runner import Runner
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.checks.config_keys import misspelt_keys
from mmdet_dino_r1.engine.hooks.strict_load_hook import StrictLoadHook
from mmdet_dino_r1.utils.checkpoint_fit import misfits


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


@pytest.mark.parametrize('load_from', [None, 'whole.pth', 'other.pth', 'part.pth'])
def test_what_the_checkpoint_has_is_left_out_of_the_initialisation(
    tiny_shapes, tmp_path, load_from
):
    """Nothing else is drawn differently for it."""
    whole = build_tiny().state_dict()
    backbone = build_tiny().backbone.state_dict()
    part = {name: value for name, value in whole.items() if name != 'backbone.conv1.weight'}
    wrapped = {f'module.{name}': value for name, value in whole.items()}
    other = whole | {'backbone.conv1.weight': torch.zeros(1)}
    files = dict(backbone=backbone, whole=dict(state_dict=wrapped), other=other, part=part)
    for name, content in files.items():
        torch.save(content, tmp_path / f'{name}.pth')
    states = []
    for source in (None, load_from):
        cfg = tiny_cfg(tiny_shapes, tmp_path / str(len(states)) / str(load_from))
        init = dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'))
        cfg.model.backbone.init_cfg = init
        cfg.load_from = source and str(tmp_path / source)
        runner = Runner.from_cfg(cfg)
        assert runner.train_loop is runner._train_loop  # built
        torch.manual_seed(0)
        runner.call_hook('before_run')
        assert runner.model.backbone.is_init == (source == 'whole.pth')
        runner._init_model_weights()
        states.append(runner.model.state_dict())
    for name, value in states[0].items():
        is_left_out = load_from == 'whole.pth' and name.startswith('backbone.')
        assert is_left_out or torch.equal(value, states[1][name]), name
