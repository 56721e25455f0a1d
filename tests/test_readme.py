"""What README and docs name exists, and the config for one's own data works as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import CONFIGS, tiny_model_cfg
from mmengine.config import Config
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
TOOLS = {path.stem for path in (ROOT / 'mmdet_dino_r1' / 'tools').glob('*.py')}
CONFIG_NAMES = {path.stem for path in CONFIGS.glob('*.py')}


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_name_tools_and_configs_that_exist(page):
    text = page.read_text(encoding='utf-8')
    tools = set(re.findall(r'mim run mmdet_dino_r1 (\w+)', text))
    tools |= set(re.findall(r'-m mmdet_dino_r1\.tools\.(\w+)', text))
    assert tools - {'NAME'} <= TOOLS
    configs = set(re.findall(r'\b((?:dino_r1|vis_gdino)_(?:swin|r18)\w*)\.py', text))
    written_out = {name.replace('SIZE', size) for name in configs for size in 'tbl'}
    assert written_out <= CONFIG_NAMES


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#]+)\)', page.read_text(encoding='utf-8')):
        if '://' not in target:
            assert (page.parent / target).exists(), target


def test_config_for_own_data_as_printed(tiny_shapes, tmp_path):
    """The README's file with its three lines changed: one step, one validation."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (printed,) = re.findall(r'```python\n(# my_config\.py.*?)```', text, re.S)
    changed = {
        "'mmdet_dino_r1::configs/dino_r1_swin_t_finetune.py'": (
            f"'{CONFIGS / 'dino_r1_swin_t_finetune.py'}'"  # works without an install, too
        ),
        "root = 'data/mine/'": f"root = '{tiny_shapes}/'",
        "ann_file='train.json', data_prefix=dict(img='train/')": (
            "ann_file='annotations/train.json', data_prefix=dict(img='')"
        ),
        "ann_file='val.json', data_prefix=dict(img='val/')": (
            "ann_file='annotations/val.json', data_prefix=dict(img='')"
        ),
    }
    for old, new in changed.items():
        assert printed.count(old) == 1
        printed = printed.replace(old, new)
    path = tmp_path / 'my_config.py'
    path.write_text(printed)
    cfg = Config.fromfile(path)
    assert cfg.load_from.startswith('https://') and cfg.model.backbone.type == 'SwinTransformer'

    cfg.load_from = None
    cfg.model = tiny_model_cfg(dict())
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    cfg.param_scheduler = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers, loader.persistent_workers, loader.batch_size = 0, False, 2
        for step in loader.dataset.pipeline:
            if step['type'] in ('FixScaleResize', 'RandomChoice'):
                step.update(type='Resize', scale=(64, 64), keep_ratio=True)
                step.pop('transforms', None), step.pop('backend', None)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name
    Runner.from_cfg(cfg).train()
    assert (tmp_path / 'work' / 'iter_1.pth').is_file()
    assert list((tmp_path / 'work').glob('*/metrics/iter_1.json'))
