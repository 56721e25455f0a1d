"""Class names follow the prompt bank in force, in the dict that mmdet's tools hold."""

import pytest
import torch
from conftest import build_tiny

from mmdet_dino_r1.models.detectors.prompt_banks import name_classes
from mmdet_dino_r1.structures import PromptBank

RED, GREEN = (255, 0, 0), (0, 255, 0)


def bank(*names, **kwargs):
    return PromptBank(names, torch.randn(len(names), 256), **kwargs)


def test_one_dict_has_the_names_in_force():
    model = build_tiny()
    held = model.dataset_meta = dict(classes=('cat', 'dog'), palette=[RED, GREEN])
    model.set_prompt_bank(bank('hen'))
    assert held == dict(classes=('hen',), palette=[RED, GREEN])
    model.set_prompt_bank(bank('dog', 'owl', 'cat'))
    assert held['classes'] == ('dog', 'owl', 'cat')
    assert held['palette'][:2] == [RED, GREEN] and len(held['palette']) == 3
    model.set_prompt_bank(bank('emu'), 'of one dataset')  # its samples have its names
    assert held['classes'] == ('dog', 'owl', 'cat')
    model.set_prompt_bank(None)
    assert held['classes'] == ('cat', 'dog') and held is model.dataset_meta


def test_whatever_comes_first_and_however_banks_go():
    model = build_tiny()
    assert model.dataset_meta == {}
    model.set_prompt_bank(bank('hen', 'owl'))
    assert model.dataset_meta == dict(classes=('hen', 'owl'))
    model.dataset_meta = dict(classes=('cat',))  # as mmdet does, after it has built the model
    model.dataset_meta['palette'] = [RED]
    assert model.dataset_meta['classes'] == ('hen', 'owl')
    assert len(model.dataset_meta['palette']) == 2
    model.prompt_banks.clear()
    assert model.dataset_meta['classes'] == ('cat',)
    model.dataset_meta['classes'] = ('dog',)  # somebody's own
    assert model.dataset_meta['classes'] == ('dog',)


def test_a_label_without_a_prompt_has_no_name():
    meta = {}
    name_classes(meta, bank('owl', 'hen').aligned_to(('hen', 'cat', 'owl'), skip_missing=True))
    assert meta == dict(classes=('hen', '', 'owl'))


@pytest.mark.parametrize('palette', ['random', 'coco', 'red', RED, None])
def test_colours_that_mmdet_has_for_all_stay(palette):
    meta = dict(palette=palette)
    name_classes(meta, bank('hen', 'owl'))
    assert meta['palette'] == palette
