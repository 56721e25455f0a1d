"""Training, validation, checkpoint and resume through mmengine's own Runner."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, tiny_model_cfg
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_dino_r1.utils.safe_files import load_torch_file


def tiny_cfg(shapes: Path, work_dir: Path, name='dino_r1_r18_shapes.py', by_epoch=True) -> Config:
    """A shipped config on the tiny set: two epochs of three steps, or six steps."""
    cfg = Config.fromfile(CONFIGS / name)
    grqo = cfg.model.bbox_head.get('loss_grqo')
    cfg.model = tiny_model_cfg(grqo and {k: v for k, v in grqo.items() if k != 'type'})
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{shapes}/'
        loader.dataset.pipeline = [
            dict(step, scale=(64, 64)) if step['type'] == 'Resize' else step
            for step in loader.dataset.pipeline
        ]
        loader.batch_size = 4
    for evaluator, loader in (
        (cfg.val_evaluator, cfg.val_dataloader),
        (cfg.test_evaluator, cfg.test_dataloader),
    ):
        evaluator.ann_file = str(shapes / loader.dataset.ann_file)
    if cfg.default_hooks.prompt_bank.bank.get('data_root'):
        cfg.default_hooks.prompt_bank.bank.data_root = f'{shapes}/'
    cfg.default_hooks.prompt_bank.bank.shots = 2
    cfg.default_hooks.logger.interval = 1
    cfg.log_processor = dict(type='LogProcessor', window_size=1, by_epoch=by_epoch)
    cfg.param_scheduler = None
    if by_epoch:
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=6)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=3)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=0)
    # mmengine keeps runners and visualisers by name; each run needs its own
    cfg.experiment_name = cfg.visualizer.name = '_'.join(work_dir.parts[-2:])
    return cfg


def scalars(work_dir: Path) -> list[dict]:
    """The logged lines, in order."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize('by_epoch', [True, False])
def test_train_validate_resume(tiny_shapes, tmp_path, by_epoch):
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'whole', by_epoch=by_epoch)
    runner = Runner.from_cfg(cfg)
    runner.train()
    bank = runner.model.prompt_bank
    assert len(bank) == 4 and bank.provenance['shots'] == 2
    assert bank.provenance['ann_file'].endswith('annotations/train.json')
    lines = scalars(tmp_path / 'whole')
    steps = [line for line in lines if 'loss' in line]
    assert len(steps) == 6
    for line in steps:
        assert {
            'grqo_reward_mean',
            'grqo_reward_std',
            'grqo_kl',
            'grqo_empty_images',
        } <= line.keys()
        optimised = sum(v for k, v in line.items() if 'loss' in k and k != 'loss')
        assert line['loss'] == pytest.approx(optimised, rel=1e-4)
    assert any('coco/bbox_mAP' in line for line in lines)
    name = 'epoch_2' if by_epoch else 'iter_6'
    (record,) = (tmp_path / 'whole').glob('*/metrics/*.json')
    assert record.stem == name
    assert json.loads(record.read_text())['protocol']['shots'] == 2

    half = tmp_path / 'whole' / ('epoch_1.pth' if by_epoch else 'iter_3.pth')
    state = load_torch_file(half)['state_dict']
    assert not any('reference' in name for name in state)
    again = tiny_cfg(tiny_shapes, tmp_path / 'resumed', by_epoch=by_epoch)
    again.load_from, again.resume = str(half), True
    resumed = Runner.from_cfg(again)
    resumed.train()
    assert resumed.iter == 6
    assert len([line for line in scalars(tmp_path / 'resumed') if 'loss' in line]) == 3
    assert resumed.model.reference_model.is_ready


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch, saved_at', [(True, 3), (False, 3), (False, 5)])
def test_stop_and_resume_keep_the_policy_of_the_epochs_start(
    tiny_shapes, tmp_path, by_epoch, saved_at
):
    """Two epochs of three steps, supervised then GRQO, stopped between and within epochs."""

    def cfg_for(name):
        cfg = tiny_cfg(tiny_shapes, tmp_path / name, by_epoch=by_epoch)
        cfg.default_hooks.reference_model.start_epoch = 1
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint = dict(
            type='CheckpointHook', by_epoch=by_epoch, interval=1, max_keep_ckpts=-1
        )
        return cfg

    def saved(step):
        name = f'epoch_{step // 3}.pth' if by_epoch else f'iter_{step}.pth'
        return str(tmp_path / 'whole' / name)

    whole = Runner.from_cfg(cfg_for('whole'))
    whole.train()
    at_start = load_torch_file(saved(3))['state_dict']
    reference = whole.model.reference_model.state_dict()
    assert all(torch.equal(value, at_start[name]) for name, value in reference.items())

    assert ('reference_model' in load_torch_file(saved(saved_at))) == (saved_at == 5)
    cfg = cfg_for('resumed')
    cfg.load_from, cfg.resume = saved(saved_at), True
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    steps = scalars(tmp_path / 'resumed')
    assert ['grqo_kl' in step for step in steps] == [True] * (6 - saved_at)
    again = resumed.model.reference_model.state_dict()
    assert all(torch.equal(value, reference[name]) for name, value in again.items())


def test_supervised_first_then_grqo(tiny_shapes, tmp_path):
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'one_plus_one')
    cfg.default_hooks.reference_model.start_epoch = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    Runner.from_cfg(cfg).train()
    steps = scalars(tmp_path / 'one_plus_one')
    assert ['grqo_kl' in step for step in steps] == [False] * 3 + [True] * 3
    # right after the refresh only the fusion's dropout tells policy and reference apart
    assert steps[3]['grqo_kl'] < steps[5]['grqo_kl']


def test_novel_classes_are_tested_with_their_own_prompts(tiny_shapes, tmp_path):
    cfg = tiny_cfg(tiny_shapes, tmp_path / 'novel', name='dino_r1_r18_shapes_novel.py')
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    assert 'coco/bbox_mAP_50' in metrics
    bank = runner.model.prompt_bank
    assert len(bank) == 2
    assert bank.provenance['ann_file'].endswith('annotations/prompts_novel.json')
    assert list(bank.class_names) == list(runner.test_dataloader.dataset.metainfo['classes'])


def test_prompts_are_encoded_by_the_weights_that_are_tested(tiny_shapes, tmp_path):
    """Twice the bank from one model is the same; from another model it is not."""
    banks = []
    for seed in (0, 0, 1):
        cfg = tiny_cfg(tiny_shapes, tmp_path / f'run{len(banks)}')
        cfg.randomness = dict(seed=seed)
        runner = Runner.from_cfg(cfg)
        torch.manual_seed(seed)
        runner.model.init_weights()
        runner.test()
        banks.append(runner.model.prompt_bank.embeddings)
    assert torch.equal(banks[0], banks[1])
    assert not torch.allclose(banks[0], banks[2])
