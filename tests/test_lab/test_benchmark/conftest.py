import sys

import pytest
from conftest import tiny_model_cfg
from mmdet.models.layers.transformer import dino_layers
from mmengine.config import ConfigDict

from mmdet_dino_r1.lab.benchmark.workload import Workload


@pytest.fixture
def cfg():
    """As much of a whole config as the models need, tiny."""
    return ConfigDict(
        model=tiny_model_cfg(dict()),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4)),
    )


@pytest.fixture
def workload():
    return Workload(height=64, width=96, batch_size=2, classes=5, boxes=3)


@pytest.fixture(autouse=True)
def mmdet_as_it_was(monkeypatch):
    """Undo what is mended in mmdet, and take no BERT, which takes its time."""
    monkeypatch.setattr(dino_layers, 'coordinate_to_encoding', dino_layers.coordinate_to_encoding)
    monkeypatch.setitem(sys.modules, 'transformers', None)
