"""A tiny model as files, for the tools that take a config and a checkpoint."""

import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmengine.config import Config


@pytest.fixture
def tiny_files(tmp_path):
    """Paths of config and checkpoint, as on a command line."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    cfg.model = tiny_model_cfg()
    cfg.dump(tmp_path / 'tiny.py')
    torch.save(dict(state_dict=build_tiny().state_dict(), meta={}), tmp_path / 'tiny.pth')
    return [str(tmp_path / 'tiny.py'), str(tmp_path / 'tiny.pth')]
