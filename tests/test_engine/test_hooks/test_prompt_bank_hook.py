"""The protocol's line and where exemplars come from."""

import logging
from types import SimpleNamespace

import pytest
from conftest import CONFIGS, build_tiny
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmdet_dino_r1.engine.hooks import PromptBankHook


@pytest.fixture
def printed():
    """Messages of mmengine's current logger."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def runner_for(shapes, ann_file='annotations/val.json'):
    """What the hook reads of a runner, on the tiny set."""
    cfg = Config.fromfile(CONFIGS / 'vis_gdino_r18_shapes.py')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{shapes}/'
    cfg.test_dataloader.dataset.ann_file = ann_file
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(cfg=cfg, model=build_tiny(), test_dataloader=loader)


def test_line_names_protocol_shots_seed_and_split(tiny_shapes, printed):
    runner = runner_for(tiny_shapes)
    PromptBankHook(dict(shots=3, seed=5)).before_test_epoch(runner)
    (line,) = [line for line in printed if 'Visual-G' in line]
    assert 'N = 3 exemplars per class (fewest 3), seed 5' in line
    assert f'from {tiny_shapes}/annotations/train.json' in line and '4 classes' in line
    assert not runner.model.training


def test_named_split_is_used(tiny_shapes):
    runner = runner_for(tiny_shapes, 'annotations/val_novel.json')
    bank = dict(
        shots=1,
        data_root=f'{tiny_shapes}/',
        ann_file='annotations/prompts_novel.json',
        data_prefix=dict(img=''),
    )
    PromptBankHook(bank).before_test_epoch(runner)
    assert runner.model.prompt_bank.provenance['ann_file'].endswith('prompts_novel.json')


def test_class_without_exemplars_is_named(tiny_shapes):
    runner = runner_for(tiny_shapes, 'annotations/val_novel.json')
    novel = runner.test_dataloader.dataset.metainfo['classes'][0]
    with pytest.raises(ValueError, match=novel):
        PromptBankHook(dict(shots=1)).before_test_epoch(runner)  # the training set has none


def test_number_of_images_per_batch_changes_nothing(tiny_shapes):
    banks = []
    for batch_size in (1, 5):
        runner = runner_for(tiny_shapes)
        runner.model.load_state_dict(banks[0][0] if banks else runner.model.state_dict())
        runner.cfg.test_dataloader.batch_size = batch_size
        PromptBankHook(dict(shots=4)).before_test_epoch(runner)
        banks.append((runner.model.state_dict(), runner.model.prompt_bank.embeddings))
    assert (banks[0][1] - banks[1][1]).abs().max() < 1e-5


def test_misspelt_key_is_named():
    with pytest.raises(ValueError, match="'shot'"):
        PromptBankHook(dict(shot=3))
