from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_dino_r1.engine.hooks.group_visualization_hook import (
    GroupVisualizationHook,
    folder_below,
)

METAS = dict(
    pond=dict(classes=('fish', 'frog'), palette=[(255, 0, 0), (0, 255, 0)]),
    yard=dict(classes=('hen',), palette=[(0, 0, 255)]),
)


@pytest.fixture
def drawn(monkeypatch):
    """Class names in force for each picture that is drawn."""
    names = []
    draw = DetLocalVisualizer.add_datasample

    def recorded(self, *args, **kwargs):
        names.append(self.dataset_meta['classes'])
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(DetLocalVisualizer, 'add_datasample', recorded)
    return names


def make_hook(tmp_path, **kwargs):
    visualizer = DetLocalVisualizer.get_instance(
        f'test-{tmp_path}',
        vis_backends=[dict(type='LocalVisBackend')],
        save_dir=str(tmp_path / 'backend'),
    )
    visualizer.dataset_meta = dict(classes=('outer',), palette=[(9, 9, 9)])
    hook = GroupVisualizationHook(draw=True, **kwargs)
    hook._visualizer = visualizer
    return hook


def make_runner(tmp_path, dataset):
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(
        work_dir=str(tmp_path),
        timestamp='now',
        iter=0,
        test_dataloader=loader,
        val_dataloader=loader,
    )


def make_group(tmp_path):
    members = [
        SimpleNamespace(metainfo=meta, data_prefix=dict(img=str(tmp_path / f'data_{name}')))
        for name, meta in METAS.items()
    ]
    return SimpleNamespace(names=list(METAS), datasets=members, prompt_sources=dict.fromkeys(METAS))


def make_sample(tmp_path, dataset_name=None, below='', name='1.png'):
    """A picture named 1.png in each dataset, with one detection of its class 0."""
    path = tmp_path / f'data_{dataset_name}' / below / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode('.png', np.full((40, 60, 3), 200, np.uint8))[1].tobytes())
    meta = dict(img_path=str(path))
    sample = DetDataSample(
        metainfo=meta | (dict(dataset_name=dataset_name) if dataset_name else {})
    )
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 10, 50, 30]]),
        labels=torch.tensor([0]),
        scores=torch.tensor([0.9]),
    )
    return sample


def test_each_dataset_has_its_folder_and_its_classes(tmp_path, drawn):
    hook = make_hook(tmp_path, test_out_dir='shown')
    runner = make_runner(tmp_path, make_group(tmp_path))
    batch = [make_sample(tmp_path, 'pond'), make_sample(tmp_path, 'yard')]
    hook.after_test_iter(runner, 0, {}, batch)
    hook.after_test_iter(runner, 1, {}, batch[1:])
    assert drawn == [('fish', 'frog'), ('hen',), ('hen',)]
    shown = tmp_path / 'now' / 'shown'
    found = sorted(str(path.relative_to(shown)) for path in shown.rglob('*.png'))
    assert found == ['pond/1.png', 'yard/1.png']
    # in the colour of the dataset's own class 0
    pond, yard = (cv2.imread(str(shown / name)).astype(int) for name in found)
    redness = [picture[..., 2] - picture[..., 0] for picture in (pond, yard)]
    assert redness[0].max() > 100 and redness[0].min() > -50
    assert redness[1].min() < -100 and redness[1].max() < 50


def test_validation_draws_with_the_classes_of_the_sample(tmp_path, drawn):
    hook = make_hook(tmp_path, interval=1)
    runner = make_runner(tmp_path, make_group(tmp_path))
    for index, name in enumerate(('yard', 'pond')):
        hook.after_val_iter(runner, index, {}, [make_sample(tmp_path, name)])
    assert drawn == [('hen',), ('fish', 'frog')]


def test_plain_dataset_as_ever(tmp_path, drawn):
    hook = make_hook(tmp_path, test_out_dir='shown')
    prefix = dict(img=str(tmp_path / 'data_None'))
    dataset = SimpleNamespace(metainfo=dict(classes=('outer',)), data_prefix=prefix)
    runner = make_runner(tmp_path, dataset)
    for index in range(2):
        hook.after_test_iter(runner, index, {}, [make_sample(tmp_path)])
    hook.after_val_iter(runner, 0, {}, [make_sample(tmp_path)])
    assert drawn == [('outer',)] * 3
    assert [path.name for path in Path(tmp_path, 'now/shown').iterdir()] == ['1.png']


def test_pictures_of_one_name_in_several_folders_are_all_kept(tmp_path):
    hook = make_hook(tmp_path, test_out_dir='shown')
    folders = ['', 'cam_a', 'cam_a/day 2', 'cam_b']
    samples = [make_sample(tmp_path, below=below) for below in folders]
    prefix = dict(img=f'{tmp_path}/data_None/')
    runner = make_runner(tmp_path, SimpleNamespace(metainfo={}, data_prefix=prefix))
    hook.after_test_iter(runner, 0, {}, samples[:3])
    hook.after_test_iter(runner, 1, {}, samples[3:])
    shown = tmp_path / 'now' / 'shown'
    found = {str(path.relative_to(shown)) for path in shown.rglob('*.png')}
    assert found == {'1.png', 'cam_a/1.png', 'cam_a/day 2/1.png', 'cam_b/1.png'}


def test_names_that_cannot_be_written_get_a_suffix(tmp_path):
    hook = make_hook(tmp_path, test_out_dir='shown')
    names = ['x.jfif', 'a1b2c3', 'plain.jpg']
    samples = [make_sample(tmp_path, name=name) for name in names]
    prefix = dict(img=f'{tmp_path}/data_None/')
    runner = make_runner(tmp_path, SimpleNamespace(metainfo={}, data_prefix=prefix))
    hook.after_test_iter(runner, 0, {}, samples)
    found = {path.name for path in (tmp_path / 'now' / 'shown').iterdir()}
    assert found == {'x.jfif.png', 'a1b2c3.png', 'plain.jpg'}


def test_all_shipped_configs_have_it():
    """The parts of configs that name a visualization inherit this one."""
    runtime = Config.fromfile(CONFIGS / '_base_/plugin_runtime.py')
    assert runtime.default_hooks.visualization == dict(type='GroupVisualizationHook')
    others = [path for path in CONFIGS.rglob('*.py') if 'visualization' in path.read_text()]
    assert others == [CONFIGS / '_base_/plugin_runtime.py']


def test_folder_below():
    assert folder_below('data/val/a/1.png', 'data/val/') == 'a/'
    assert folder_below('data/val/1.png', 'data/val') == ''
    assert folder_below('/mnt/b/1.png', '/data/val') == 'mnt/b/'
    assert folder_below('../b/1.png', None) == 'b/'
    assert folder_below('s3://bucket/val/a/1.png', 's3://bucket/val/') == 'a/'


def test_draws_nothing_unless_asked(tmp_path, drawn):
    hook = make_hook(tmp_path, test_out_dir='shown')
    hook.draw = False
    runner = make_runner(tmp_path, make_group(tmp_path))
    hook.after_test_iter(runner, 0, {}, [make_sample(tmp_path, 'pond')])
    hook.after_val_iter(runner, 0, {}, [make_sample(tmp_path, 'pond')])
    assert drawn == [] and not (tmp_path / 'now').exists()
