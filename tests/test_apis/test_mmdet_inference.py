"""mmdet's own inference: the names are those of the prompts, and no data need be there."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import CONFIGS, build_tiny, tiny_model_cfg
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_dino_r1 import PromptBank, load_prompt_bank, save_prompt_bank
from mmdet_dino_r1.apis import DINOR1Inferencer

TRAINED = ('cat', 'dog', 'cow')
COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
IMAGE = np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)


def bank_of(*names):
    return PromptBank(
        names, torch.randn(len(names), 256, generator=torch.Generator().manual_seed(2))
    )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """What a training on three classes leaves."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = build_tiny()
    for branch in model.bbox_head.cls_branches:  # scores that differ, not all at the prior
        torch.nn.init.zeros_(branch.bias)
    path = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    meta = dict(dataset_meta=dict(classes=TRAINED, palette=COLOURS))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


def config_of(name, folder, **model):
    """A shipped config with the tiny model, where none of its data is."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.model = tiny_model_cfg(**model)
    cfg.visualizer.name = str(folder)  # mmengine keeps visualizers by name
    return cfg


@pytest.fixture
def drawn(monkeypatch):
    """Texts in the pictures that are drawn, without their scores."""
    texts, draw = [], DetLocalVisualizer.draw_texts

    def recorded(self, text, *args, **kwargs):
        texts.append(text.split(':')[0])
        return draw(self, text, *args, **kwargs)

    monkeypatch.setattr(DetLocalVisualizer, 'draw_texts', recorded)
    return texts


@pytest.mark.parametrize(
    'name',
    [
        'dino_r1_r18_shapes',
        'dino_r1_swin_t_coco',
        'dino_r1_swin_t_finetune',
        'dino_r1_swin_t_o365',
        'dino_r1_swin_t_zeroshot_coco',
        'dino_r1_swin_t_zeroshot_lvis',
        'dino_r1_swin_t_zeroshot_odinw13',
    ],
)
def test_no_data_need_be_there(name, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config_of(name, tmp_path)
    model = init_detector(deepcopy(cfg), checkpoint, device='cpu')
    assert model.dataset_meta == dict(classes=TRAINED, palette=COLOURS)
    if 'odinw' in name:  # several sets, of which mmdet's inferencer takes no pipeline
        return
    inferencer = DetInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    assert inferencer.visualizer.dataset_meta == model.dataset_meta


def test_names_are_those_of_the_bank_in_force(checkpoint, tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    inferencer = DetInferencer(
        config_of('dino_r1_r18_shapes', tmp_path), checkpoint, device='cpu', show_progress=False
    )
    other = ('hen', 'owl', 'emu', 'kiwi', 'swan')
    for names in (other, other[::-1], TRAINED[::-1]):
        inferencer.model.set_prompt_bank(bank_of(*names))
        drawn.clear()
        found = inferencer(IMAGE, return_vis=True, pred_score_thr=0, no_save_pred=True)
        (labels,) = [prediction['labels'] for prediction in found['predictions']]
        assert drawn == [names[label] for label in labels] and len(set(drawn)) > 1
        # SAHI and mmdet's servers look here
        assert inferencer.model.dataset_meta['classes'] == names
    inferencer.model.set_prompt_bank(None)
    assert inferencer.visualizer.dataset_meta['classes'] == TRAINED
    assert inferencer.visualizer.dataset_meta['palette'][:3] == COLOURS


def test_without_prompts_the_remedy_is_named(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = init_detector(config_of('dino_r1_r18_shapes', tmp_path), checkpoint, device='cpu')
    with pytest.raises(RuntimeError, match=r'set_prompt_bank\(mmdet_dino_r1.load_prompt_bank\(FIL'):
        inference_detector(model, IMAGE)
    path = save_prompt_bank(bank_of('hen', 'owl'), tmp_path / 'birds.safetensors')
    model.set_prompt_bank(load_prompt_bank(path))
    expected = inference_detector(model, IMAGE).pred_instances
    assert len(expected) == 20 and model.dataset_meta['classes'] == ('hen', 'owl')


def test_a_bank_named_in_the_config_serves_all_who_take_a_config(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bank = bank_of('hen', 'owl', 'emu', 'swan')
    path = str(save_prompt_bank(bank, tmp_path / 'birds.safetensors'))
    cfg = config_of('dino_r1_r18_shapes', tmp_path, prompt_bank=path)
    model = init_detector(deepcopy(cfg), checkpoint, device='cpu')
    assert model.dataset_meta['classes'] == bank.class_names
    assert model.dataset_meta['palette'][:3] == COLOURS
    assert len(model.dataset_meta['palette']) == 4
    found = inference_detector(model, IMAGE).pred_instances
    ours = DINOR1Inferencer(cfg, checkpoint, device='cpu', show_progress=False)
    (same,) = ours(IMAGE, score_thr=0)['predictions']
    assert same['class_names'] == [bank.class_names[label] for label in found.labels]
    ours.model.set_prompt_bank(bank_of('kiwi', 'wren'))  # past set_prompts
    (other,) = ours(IMAGE, score_thr=0)['predictions']
    assert set(other['class_names']) == {'kiwi', 'wren'} == set(ours.classes)
