"""The hook, in trainings of two steps through mmengine's own Runner."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_dino_r1.lab.query_view.collect import view_dataset
from mmdet_dino_r1.lab.query_view.hook import QueryViewHook

PACKAGE = 'mmdet_dino_r1.lab.query_view'


@pytest.fixture
def trained(tiny_shapes, tmp_path):
    """Trains two steps with a validation after each; arguments are the hook's."""

    def train(protocol='visual_g', ema=False, **hook) -> Runner:
        cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
        cfg.model = tiny_model_cfg(dict())
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = f'{tiny_shapes}/'
            loader.batch_size = 2
            loader.dataset.pipeline = [
                dict(step, scale=(64, 64)) if step['type'] == 'Resize' else step
                for step in loader.dataset.pipeline
            ]
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator.ann_file = str(tiny_shapes / 'annotations/val.json')
        cfg.default_hooks.prompt_bank = dict(
            type='PromptBankHook', bank=dict(shots=2), protocol=protocol
        )
        cfg.custom_hooks = [dict(type='QueryViewHook', num_images=1, **hook)]
        if ema:  # an average that stays at its start
            cfg.custom_hooks.append(dict(type='EMAHook', momentum=1e-9))
        cfg.param_scheduler = None
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
        cfg.work_dir = str(tmp_path / str(len(list(tmp_path.iterdir()))))
        cfg.randomness = dict(seed=0)
        # mmengine keeps runners and visualisers by name; each run needs its own
        cfg.experiment_name = cfg.visualizer.name = f'{tmp_path.name}_{Path(cfg.work_dir).name}'
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    return train


def pictures(runner: Runner) -> list[str]:
    root = Path(runner.log_dir)
    return sorted(str(path.relative_to(root)) for path in root.glob('query_views/*/*.png'))


def test_pictures_and_a_training_that_stays_the_same(trained, monkeypatch):
    """For the work dir and the backends; the weights are those of a training without the hook."""
    runner = trained()
    (image,) = {Path(name).name for name in pictures(runner)}
    assert pictures(runner) == [f'query_views/iter_{n}/{image}' for n in (1, 2)]
    root = Path(runner.log_dir)
    drawn = cv2.imread(str(root / 'query_views/iter_2' / image))
    in_backend = root / 'vis_data/vis_image' / f'queries_{Path(image).stem}_2.png'
    np.testing.assert_array_equal(drawn, cv2.imread(str(in_backend)))
    assert drawn.std() > 5

    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    monkeypatch.setattr(f'{PACKAGE}.collect.view_dataset', lambda *args: [])
    for name, value in trained().model.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)


def test_interval_and_what_is_drawn(trained, monkeypatch):
    seen = []

    def collect(model, dataset, num_images, image_ids):
        seen.append((model, dataset, num_images, image_ids))
        return view_dataset(model, dataset, image_ids=image_ids)

    def draw(image, views):
        ((title, view),) = views.items()
        assert title == 'iteration 2' and image.shape == (64, 64, 3)
        assert len(view.class_names) == 4 and view.truth is not None
        return np.full((5, 6, 3), 7, np.uint8)

    monkeypatch.setattr(f'{PACKAGE}.collect.view_dataset', collect)
    monkeypatch.setattr(f'{PACKAGE}.figure.draw_queries', draw)
    runner = trained(interval=2, image_ids=[2])
    assert seen == [(runner.model, runner.val_dataloader.dataset, 1, [2])]
    assert pictures(runner) == ['query_views/iter_2/2.png']


def test_weights_are_those_of_the_validation(trained, monkeypatch):
    """The EMA's, not the training's, which the EMA hook puts back afterwards."""
    weights = []

    def collect(model, *args):
        weights.append({name: value.clone() for name, value in model.named_parameters()})
        return []

    monkeypatch.setattr(f'{PACKAGE}.collect.view_dataset', collect)
    runner = trained(ema=True)
    first, second = weights
    trained_weights = dict(runner.model.named_parameters())
    name = 'query_embedding.weight'
    torch.testing.assert_close(first[name], second[name])
    assert not torch.allclose(second[name], trained_weights[name])


def test_without_a_bank_nothing_is_drawn(trained):
    assert pictures(trained(protocol='visual_i')) == []


def test_what_is_refused():
    with pytest.raises(ValueError, match='interval must be at least 1'):
        QueryViewHook(interval=0)
    group = SimpleNamespace(datasets=[])
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=group))
    with pytest.raises(ValueError, match='one dataset at a time'):
        QueryViewHook().before_train(SimpleNamespace(val_loop=loop))
