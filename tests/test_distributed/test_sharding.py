"""FSDP and DeepSpeed: what is refused, before anything is built, and what is not."""

from __future__ import annotations

from argparse import Namespace

import pytest
from mmdet.models.layers.transformer import grounding_dino_layers
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from test_engine.test_runner import tiny_cfg

from mmdet_dino_r1.checks.preflight import explain_mistake, explain_sharding


def grqo_cfg(**keys) -> Config:
    """What of a DINO-R1 config matters here."""
    return Config(dict(model=dict(bbox_head=dict(loss_grqo=dict(type='GRQOLoss'))), **keys))


def explain(cfg) -> str | None:
    return explain_sharding(cfg, Namespace(), 'train')


@pytest.mark.parametrize('strategy', ['FSDPStrategy', 'DeepSpeedStrategy', 'ColossalAIStrategy'])
def test_a_sharded_policy_has_no_reference(strategy):
    cfg = grqo_cfg(runner_type='FlexibleRunner', strategy=dict(type=f'mmengine.{strategy}'))
    message = explain_mistake(cfg, Namespace(), 'train')
    assert message.startswith(f'{strategy} shards the policy')
    for remedy in (
        'MMDistributedDataParallel',
        '--amp',
        'model.encoder.num_cp',
        'model.backbone.with_cp=True',
        'model.bbox_head.loss_grqo.kl_weight=0',
    ):
        assert remedy in message
    assert explain_mistake(cfg, Namespace(), 'test') is None
    # what needs no reference goes on, and so does the baseline
    cfg.model.bbox_head.loss_grqo.kl_weight = 0
    assert explain(cfg) is None
    cfg.model.bbox_head.loss_grqo = None
    assert explain(cfg) is None


def test_a_wrapper_that_shards_is_refused_under_the_plain_runner():
    message = explain(grqo_cfg(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')))
    assert message.startswith("model_wrapper_cfg.type='MMFullyShardedDataParallel': ")
    assert "strategy=dict(type='FSDPStrategy')" in message
    assert explain(grqo_cfg(model_wrapper_cfg=dict(type='MMDistributedDataParallel'))) is None


def test_a_strategy_that_nobody_would_read_is_said():
    message = explain(grqo_cfg(strategy=dict(type='DDPStrategy')))
    assert "runner_type='FlexibleRunner'" in message
    cfg = grqo_cfg(strategy=dict(type='DDPStrategy'), runner_type='FlexibleRunner')
    assert explain(cfg) is None
    assert explain(ConfigDict()) is None


def test_deepspeed_that_is_not_installed_is_named(tiny_shapes, tmp_path):
    pytest.importorskip('mmengine._strategy.deepspeed')
    if __import__('importlib.util').util.find_spec('deepspeed'):
        pytest.skip('deepspeed is installed')
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'deepspeed', name='vis_gdino_r18_shapes.py')
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(type='DeepSpeedStrategy')
    with pytest.raises(AssertionError, match='DeepSpeed is not installed'):
        RUNNERS.build(cfg)


def test_fairscale_is_not_used_even_where_it_is_installed(monkeypatch):
    from conftest import build_tiny

    def refuse(module):
        raise AssertionError('fairscale was asked to wrap a layer')

    for wrapper in (refuse, None):  # as with fairscale, and as without
        monkeypatch.setattr(grounding_dino_layers, 'checkpoint_wrapper', wrapper)
        assert build_tiny(encoder=dict(num_cp=1)).encoder.num_cp == 1
