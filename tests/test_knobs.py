"""Every key of the README's tables of knobs, set as on the command line, reaches what is built."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import HOOKS

README = (Path(__file__).resolve().parents[1] / 'README.md').read_text(encoding='utf-8')
# key -> default as the tables print it
KEYS = dict(re.findall(r'^\| `((?:model|default_hooks)\.[\w.]+)` \| ([^|,]+)', README, re.M))
OTHER_VALUES = {
    'model.bbox_head.loss_grqo.reward_weight': '0.1',
    'model.bbox_head.loss_grqo.kl_weight': '0',
    'model.bbox_head.loss_grqo.mute_share': '0.5',
    'model.bbox_head.loss_grqo.advantage': 'policy',
    'model.bbox_head.loss_grqo.shared_exemplars': 'False',
    'default_hooks.reference_model.start_epoch': '3',
    'default_hooks.reference_model.interval': '2',
    'model.prompt_sampler.exemplars_per_class': '4',
    'model.prompt_sampler.prefer_other_image': 'True',
    'model.prompt_sampler.max_prompts': '300',
    'model.gather_prompts': 'True',
    'model.fusion': 'False',
    'model.prompts_from': 'memory',
}


def built(monkeypatch, options: dict[str, str]) -> dict:
    """Model and hooks of a shipped config under ``--cfg-options``; the model has no memory."""
    on_cpu = torch.linspace
    # Swin reads its drop-path rates from a tensor, which a meta tensor does not allow
    monkeypatch.setattr(torch, 'linspace', lambda *a, **k: on_cpu(*a, **dict(k, device='cpu')))
    cfg = Config.fromfile(CONFIGS / 'dino_r1_swin_t_coco.py')
    cfg.merge_from_dict(parsed(options))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    hooks = {key.split('.')[1] for key in OTHER_VALUES if key.startswith('default_hooks.')}
    hooks = {name: HOOKS.build(cfg.default_hooks[name]) for name in hooks}
    return dict(model=model, default_hooks=hooks)


def parsed(options: dict[str, str]) -> dict:
    """As the command line gives them to the config."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    words = [f'{key}={value}' for key, value in options.items()]
    return parser.parse_args(['--cfg-options', *words]).cfg_options


def value_at(built: dict, key: str):
    """What stands at 'model.bbox_head.loss_grqo.kl_weight', as an attribute of what was built."""
    part, *path = key.split('.')
    found = built[part]
    for name in path:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


def test_every_key_of_the_tables_is_read(monkeypatch):
    assert KEYS.keys() == OTHER_VALUES.keys()
    before, after = built(monkeypatch, {}), built(monkeypatch, OTHER_VALUES)
    for key, other in parsed(OTHER_VALUES).items():
        assert value_at(before, key) == eval(KEYS[key].strip(' `')), key
        assert value_at(after, key) == other != value_at(before, key), key


def test_a_key_that_nothing_reads_would_be_found():
    nothing = dict(model=torch.nn.Module(), default_hooks=dict(reference_model=object()))
    for key in ('start_epoch', 'model.kl_weight', 'default_hooks.reference_model.start_epoch'):
        with pytest.raises((KeyError, AttributeError)):
            value_at(nothing, key)
