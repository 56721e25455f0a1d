import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_dino_r1.lab.benchmark.contenders import DINO_R1, build_contender
from mmdet_dino_r1.lab.benchmark.loading import keeping_up, loading_figures, pipeline_figures


@pytest.fixture
def shapes_cfg(tiny_shapes):
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{tiny_shapes}/'
        loader.batch_size = 2
    cfg.model = tiny_model_cfg(dict())
    return cfg


@pytest.mark.parametrize(
    ('loading', 'step', 'waiting', 'workers'),
    [
        (1, 3, 25, 1),  # in turn
        (4, 3, 100 * 4 / 7, 2),
    ],
)
def test_waiting_by_hand(loading, step, waiting, workers):
    figures = keeping_up(loading, step)
    assert figures['waiting without workers, %'] == pytest.approx(waiting)
    assert figures['workers that keep up'] == workers


def test_loading_beside_training(shapes_cfg):
    contender = build_contender(DINO_R1, shapes_cfg, torch.device('cpu'), torch.float32, False)
    figures = loading_figures(shapes_cfg, contender, rounds=1, images=3)
    milliseconds = figures['ms per image']['in training']
    assert {'LoadImageFromFile', 'Resize', 'PackDetInputs', 'annotations'} <= milliseconds.keys()
    loading = figures['batch, s']
    assert loading == pytest.approx(2 * sum(milliseconds.values()) / 1000)
    assert figures['step, s'] > 0
    assert figures.items() >= keeping_up(loading, figures['step, s']).items()


def test_loading_alone(shapes_cfg):
    figures = loading_figures(shapes_cfg, None, rounds=1, images=50)  # of a shorter dataset, too
    assert figures.keys() == {'images of a batch', 'batch, s', 'ms per image'}


def test_transforms_within_others_are_timed(shapes_cfg):
    dataset = shapes_cfg.train_dataloader.dataset
    resize = dataset.pipeline.pop(2)
    dataset.pipeline.insert(2, dict(type='RandomChoice', transforms=[[resize], [resize]]))
    figures = pipeline_figures(DATASETS.build(dataset), images=4)
    assert figures['Resize'] > 0 and 'RandomChoice' not in figures
