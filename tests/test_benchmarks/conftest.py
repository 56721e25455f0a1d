"""The shipped benchmark configs on small data: everything but the size of the model is theirs."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .runs import pipeline_of

SCALE = (96, 128)


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> str:
    """Weights of the tiny model, random and always the same."""
    init_default_scope('mmdet')  # a session's fixture comes before those of each test
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save(dict(state_dict=build_tiny().state_dict()), path)
    return str(path)


@pytest.fixture
def shipped(checkpoint, tmp_path):
    """A shipped config with the tiny model and small images, and a work dir of its own."""

    def load(name: str, run: str = 'run', batch_size: int = 1) -> Config:
        cfg = Config.fromfile(CONFIGS / f'{name}.py')
        cfg.model = tiny_model_cfg(test_cfg=cfg.model.test_cfg)
        cfg.load_from = checkpoint
        cfg.work_dir = str(tmp_path / run)
        cfg.test_dataloader.batch_size = batch_size
        cfg.test_dataloader.num_workers = 0
        cfg.test_dataloader.persistent_workers = False
        # mmengine keeps runners and visualisers by name; each run needs its own
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}_{run}'
        cfg.env_cfg.dist_cfg.backend = 'gloo'
        for step in pipeline_of(cfg):
            if step['type'] == 'FixScaleResize':
                step.scale = SCALE
        return cfg

    return load
