import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, build_contender
from mmdet_dino_r1.lab.benchmark.loading import (
    loader_figures,
    pipeline_figures,
    summed_up,
    waiting_share,
)


@pytest.fixture
def shapes_cfg(tiny_shapes):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{tiny_shapes}/'
        loader.batch_size = 2
    cfg.model = tiny_model_cfg(dict())
    return cfg


@pytest.mark.parametrize(
    ('loading', 'step', 'workers', 'share'),
    [
        (1, 3, 0, 0.25),  # in turn
        (1, 3, 2, 0.0),  # beside each other
        (4, 3, 2, 0.25),
    ],
)
def test_waiting_by_hand(loading, step, workers, share):
    assert waiting_share(loading, step, workers) == share


def test_a_loader_beside_training(shapes_cfg):
    contender = build_contender(DINO_R1, shapes_cfg, torch.device('cpu'), torch.float32, False)
    figures = loader_figures(shapes_cfg, contender, rounds=1, batches=2, images=3)
    assert figures['loaders'].keys() == {'0'} and figures['step'] > 0
    (loader,) = figures['loaders'].values()
    assert loader['images_per_second'] == 2 / loader['seconds_per_batch']
    assert loader['keeps_up'] == (loader['waiting'] <= 0.1)
    assert {'LoadImageFromFile', 'Resize', 'PackDetInputs', 'annotations'} <= figures[
        'pipeline'
    ].keys()
    assert 'LoadImageFromFile' in figures['exemplar_pipeline']


def test_workers_are_timed_where_the_config_has_some(shapes_cfg):
    shapes_cfg.train_dataloader.num_workers = 1
    # of a dataset shorter than what the workers prepare in advance, too
    figures = loader_figures(shapes_cfg, None, rounds=1, batches=20, images=1)
    assert figures['loaders'].keys() == {'0', '1'} and figures['step'] is None
    assert all('waiting' not in of for of in figures['loaders'].values())


def test_transforms_within_others_are_timed(shapes_cfg):
    dataset = shapes_cfg.train_dataloader.dataset
    resize = dataset.pipeline.pop(2)
    dataset.pipeline.insert(2, dict(type='RandomChoice', transforms=[[resize], [resize]]))
    figures = pipeline_figures(DATASETS.build(dataset), images=4)
    assert figures['Resize'] > 0 and 'RandomChoice' not in figures


def test_kinds_of_transforms():
    pipeline = dict(
        LoadImageFromFile=5.0, LoadAnnotations=1.0, RandomChoiceResize=2.0, Resize=4.0, other=0.5
    )
    assert summed_up(pipeline) == dict(decode=5.0, resize=6.0, other=1.5)
