"""docs/training_log.md explains every name that a training logs, and none besides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from conftest import CONFIGS, tiny_model_cfg
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_dino_r1.structures import TextEmbeddings, save_text_embeddings

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'training_log.md'
ON_A_GPU = {'memory'}


def logged_names(shapes: Path, folder: Path) -> set[str]:
    """Of one epoch and one validation, with all that can be switched on."""
    cfg = Config.fromfile(CONFIGS / 'dino_r1_r18_shapes.py')
    annotations = json.loads((shapes / 'annotations/train.json').read_text())
    names = tuple(category['name'] for category in annotations['categories'])
    texts = save_text_embeddings(
        TextEmbeddings(names, torch.randn(len(names), 768), {}), folder / 'texts'
    )
    alignment = dict(type='PromptTextContrastiveLoss', embeddings=str(texts))
    contrast = dict(type='PromptContrastiveLoss')
    cfg.model = tiny_model_cfg(dict(), text_alignment=alignment, prompt_contrast=contrast)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.data_root = f'{shapes}/'
    cfg.val_evaluator.ann_file = str(shapes / cfg.val_dataloader.dataset.ann_file)
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
    cfg.merge_from_dict(
        {
            'train_cfg': dict(
                _delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1
            ),
            'log_processor.by_epoch': True,
            'default_hooks.checkpoint.by_epoch': True,
            'default_hooks.logger.interval': 1,
            'default_hooks.prompt_bank.bank.shots': 1,
            'default_hooks.text_alignment': dict(type='TextAlignmentHook'),
            'default_hooks.gradient_share': dict(type='GradientShareHook', interval=1),
            'param_scheduler': None,
            'work_dir': str(folder),
            'experiment_name': folder.name,
            'visualizer.name': folder.name,
        }
    )
    Runner.from_cfg(cfg).train()
    (log,) = folder.glob('*/vis_data/scalars.json')
    found = {name for line in log.read_text().splitlines() for name in json.loads(line)}
    return {re.sub(r'^d\d+\.', 'dN.', name) for name in found}


def explained_names(page: str) -> set[str]:
    """The code in the first cells of the page's tables."""
    return {
        name
        for row in re.findall(r'^\|([^|]+)\|', page, re.M)
        for name in re.findall('`(.+?)`', row)
    }


def test_the_page_explains_what_is_logged_and_nothing_else(tiny_shapes, tmp_path):
    logged = logged_names(tiny_shapes, tmp_path) | ON_A_GPU
    explained = explained_names(PAGE.read_text(encoding='utf-8'))
    assert not logged - explained, 'is logged and not explained'
    assert not explained - logged, 'is explained and never logged'
