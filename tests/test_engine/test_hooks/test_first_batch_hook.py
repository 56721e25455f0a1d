"""The picture of the first batch: what it shows, that it is drawn once and harms nothing."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine.runner import Runner
from test_engine.test_runner import scalars, tiny_cfg

from mmdet_dino_r1.engine.hooks import FirstBatchHook
from mmdet_dino_r1.engine.hooks.first_batch_hook import (
    _CAPTION,
    EXEMPLAR,
    TRUTH,
    as_pixels,
    draw_batch,
)


def cfg_for(shapes, work_dir):
    cfg = tiny_cfg(shapes, work_dir)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def losses(work_dir) -> list[float]:
    return [line['loss'] for line in scalars(work_dir) if 'loss' in line]


@pytest.fixture(scope='module')
def without(tiny_shapes, tmp_path_factory) -> list[float]:
    """Losses of a training without a picture."""
    folder = tmp_path_factory.mktemp('without')
    cfg = cfg_for(tiny_shapes, folder)
    cfg.default_hooks.first_batch.max_images = 0
    Runner.from_cfg(cfg).train()
    assert not list(folder.rglob('first_batch.jpg'))
    return losses(folder)


def test_a_training_leaves_one_picture_and_the_same_losses(
    tiny_shapes, tmp_path, monkeypatch, without
):
    written = []
    real = FirstBatchHook._write

    def write(self, runner, preprocessor, step):
        written.append((runner.iter, step))
        real(self, runner, preprocessor, step)

    monkeypatch.setattr(FirstBatchHook, '_write', write)
    runner = Runner.from_cfg(cfg_for(tiny_shapes, tmp_path / 'run'))
    runner.train()
    assert losses(tmp_path / 'run') == without and len(without) == 6
    ((iteration, step),) = written  # of two epochs
    assert iteration == 0
    (path,) = (tmp_path / 'run').rglob('first_batch.jpg')
    assert path.parent == (tmp_path / 'run' / runner.timestamp)
    picture = cv2.imread(str(path)).astype(int)
    assert picture.shape == (2 * (640 + _CAPTION), 2 * 640, 3)  # four images
    assert len(step['boxes'])
    for index, (cx, cy, w, h) in zip(step['image_index'], step['boxes'] * 640, strict=True):
        top = index // 2 * (640 + _CAPTION) + _CAPTION
        tile = picture[top : top + 640, index % 2 * 640 :][:, :640]
        left = max(int(cx - w / 2) - 1, 0)
        edge = np.median(tile[int(cy - h / 2) : int(cy + h / 2), left : left + 2], axis=(0, 1))
        assert np.abs(edge - EXEMPLAR).max() < 20, (index, edge)
    assert not runner.model._forward_pre_hooks
    assert not runner.model.prompt_encoder._forward_pre_hooks


def test_a_picture_that_cannot_be_written_is_a_warning(tiny_shapes, tmp_path, monkeypatch, without):
    real = FirstBatchHook._write

    def write(self, runner, preprocessor, step):
        (tmp_path / 'run' / runner.timestamp / 'first_batch.jpg').mkdir()
        real(self, runner, preprocessor, step)

    monkeypatch.setattr(FirstBatchHook, '_write', write)
    Runner.from_cfg(cfg_for(tiny_shapes, tmp_path / 'run')).train()
    assert losses(tmp_path / 'run') == without
    (log,) = (tmp_path / 'run').glob('*/*.log')
    told = [line for line in log.read_text().splitlines() if 'No picture of the first' in line]
    assert len(told) == 1 and 'WARNING' in told[0] and 'IsADirectoryError' in told[0]


def test_of_a_joint_exemplar_each_box_is_shown(monkeypatch):
    seen = []
    monkeypatch.setattr(FirstBatchHook, '_write', lambda *args: seen.append(args[-1]))
    # every box is drawn
    monkeypatch.setattr('mmdet_dino_r1.models.task_modules.prompt_sampler.thinned', lambda b: b)
    model = build_tiny(prompt_encoder=dict(type='JointPromptEncoder'))
    hook = FirstBatchHook()
    hook.before_train(None)
    hook.before_train_iter(SimpleNamespace(model=model), 0)
    images, samples = make_batch(TWO_IMAGES)
    model(inputs=images, data_samples=samples, mode='loss')
    (step,) = seen
    blank = np.zeros((2, 64, 64, 3), np.uint8)
    picture = draw_batch(blank, samples, step['image_index'], step['boxes'])
    assert step['image_index'].tolist() == [0, 0, 0, 1]
    assert (picture == EXEMPLAR).all(-1).any()


def test_another_process_draws_nothing(monkeypatch):
    monkeypatch.setattr(
        'mmdet_dino_r1.engine.hooks.first_batch_hook.is_main_process', lambda: False
    )
    hook = FirstBatchHook()
    hook.before_train(None)
    hook.before_train_iter(None, 0)  # would ask the runner for its model


@pytest.mark.parametrize('converts', [True, False])
def test_pixels_are_those_that_were_loaded(converts):
    from mmdet.models import DetDataPreprocessor

    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    preprocessor = DetDataPreprocessor(mean=mean, std=std, bgr_to_rgb=converts)
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    batch = preprocessor(dict(inputs=[image], data_samples=None))
    got = as_pixels(batch['inputs'], preprocessor)
    assert np.array_equal(got[0], image.permute(1, 2, 0).numpy())


def test_truth_is_green_exemplars_are_orange_and_what_is_no_box_is_left_out():
    _, samples = make_batch([([[20, 30, 60, 90], [50, 10, 75, 25]], [0, 3]), ([], [])])
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(100, 80), img_path='folder/a.jpg'))
    exemplars = torch.tensor([[0.5, 0.6, 0.5, 0.6], [0.5, 0.5, 1.0, 1.0]])  # (20, 30, 60, 90), all
    images = np.full((2, 128, 96, 3), 7, np.uint8)  # padded; drawn five times as large
    picture = draw_batch(images, samples, torch.tensor([0, 0]), exemplars, ['cat'])
    assert picture.shape == (640 + _CAPTION, 960, 3)
    tile, other = picture[_CAPTION:, :480], picture[_CAPTION:, 480:]
    assert tuple(tile[300, 98]) == tuple(tile[300, 302]) == EXEMPLAR
    assert tuple(tile[300, 94]) == tuple(tile[300, 200]) == (7, 7, 7)  # outside, inside
    assert tuple(tile[100, 375]) == TRUTH and tuple(tile[100, 378]) == (7, 7, 7)  # no exemplar
    assert tuple(tile[499, 200]) == (7, 7, 7)  # the second is no box
    assert (other == 7).all() and (images == 7).all()


def test_large_images_are_drawn_small_with_their_boxes():
    _, samples = make_batch([([[200, 400, 1000, 1200]], [0])] * 3, size=16)
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(1280, 1280)))
    images = np.full((3, 1280, 1280, 3), 9, np.uint8)
    picture = draw_batch(images, samples, torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    assert picture.shape == (2 * (640 + _CAPTION), 2 * 640, 3)
    assert tuple(picture[_CAPTION + 400, 100]) == TRUTH == tuple(picture[_CAPTION + 400, 500])
    assert (picture[-640:, -640:] == 0).all()  # no fourth image
