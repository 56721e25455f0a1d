import sys
from pathlib import Path

import pytest
import torch
from mmdet.models.detectors import GroundingDINO
from mmdet.models.layers.transformer import dino_layers
from mmdet.registry import MODELS

from mmdet_dino_r1.lab.benchmark import contenders
from mmdet_dino_r1.lab.benchmark.contenders import (
    DINO_R1,
    LATE,
    MMDET,
    NAMES,
    VIS_GDINO,
    at_published_width,
    build_contender,
    fit_classes,
    grounding_dino_cfg,
)
from mmdet_dino_r1.lab.benchmark.language_model import StubLanguageModel, language_model_cfg

CPU = torch.device('cpu')


def build(name, cfg, dtype=torch.float32, recompute=False):
    torch.manual_seed(0)
    return build_contender(name, cfg, CPU, dtype, recompute)


def shapes_of(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_mmdets_model_has_the_same_sizes(cfg):
    ours = shapes_of(build(DINO_R1, cfg).model)
    model = MODELS.build(grounding_dino_cfg(cfg.model, dict(type='StubLanguageModel')))
    theirs = shapes_of(model)
    assert type(model) is GroundingDINO
    only_ours = {name.split('.')[0] for name in ours.keys() - theirs.keys()}
    only_theirs = {name.split('.')[0] for name in theirs.keys() - ours.keys()}
    assert (only_ours, only_theirs) == ({'prompt_encoder'}, {'language_model', 'text_feat_map'})
    assert all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def test_the_given_config_stays_as_it_is(cfg):
    before = cfg.to_dict()
    for name in NAMES:
        build(name, cfg, recompute=True)
    fit_classes(cfg, 1000)
    assert cfg.to_dict() == before


def test_nothing_is_said_of_single_parameters(cfg, capfd):
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
    build(DINO_R1, cfg)
    told = capfd.readouterr()
    assert told.out + told.err == ''


@pytest.mark.parametrize('recompute', [False, True])
@pytest.mark.parametrize('name', NAMES)
def test_a_step_changes_the_weights(cfg, workload, name, recompute):
    cfg.model.encoder.num_cp = 1
    contender = build(name, cfg, recompute=recompute)
    before = contender.model.level_embed.detach().clone()
    assert contender.step(workload.training_batch()) > 0
    assert not torch.equal(contender.model.level_embed, before)


def test_recomputing_changes_no_loss(cfg, workload):
    cfg.model.encoder.num_cp = 1
    for name in NAMES:
        losses = []
        for recompute in (False, True):
            contender = build(name, cfg, recompute=recompute)
            torch.manual_seed(0)
            losses.append(contender.step(workload.training_batch()))
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_only_dino_r1_has_the_group_loss(cfg):
    built = {name: build(name, cfg).model for name in (VIS_GDINO, DINO_R1)}
    assert built[VIS_GDINO].bbox_head.loss_grqo is None
    assert built[DINO_R1].reference_model.is_ready
    del cfg.model.bbox_head['loss_grqo']  # a config of VIS-GDINO
    assert build(DINO_R1, cfg).model.bbox_head.loss_grqo.kl_weight > 0


def test_late_prompting_lacks_the_fusion_alone(cfg):
    fused, late = (shapes_of(build(name, cfg).model) for name in (VIS_GDINO, LATE))
    without = 'fusion_layers', 'text_layers', 'cross_attn_text', 'norms.1.'
    missing = {name for name in fused.keys() - late.keys() if 'prompt_encoder' not in name}
    assert missing and all(any(part in name for part in without) for name in missing)
    assert not any(name.startswith(('encoder.fusion_layers', 'encoder.text')) for name in late)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', NAMES)
def test_steps_and_detections_in_both_precisions(cfg, workload, name, dtype):
    contender = build(name, cfg, dtype)
    assert contender.step(workload.training_batch()) > 0
    contender.show_classes(workload.classes)
    assert contender.detect(workload.test_batch()) > 0


def test_mmdet_takes_many_classes_in_chunks(cfg, workload, monkeypatch):
    contender = build(MMDET, cfg)
    captions = []
    original = contender.model.language_model.forward
    monkeypatch.setattr(
        contender.model.language_model,
        'forward',
        lambda texts: (captions.extend(texts), original(texts))[1],
    )
    for classes, chunks in ((127, [127]), (128, [40, 40, 40, 8]), (1203, [40] * 30 + [3])):
        captions.clear()
        contender.show_classes(classes)
        batch = type(workload)(64, 96, classes=classes).test_batch()
        assert contender.detect(batch) == 20 * len(chunks)
        assert [caption.count('.') for caption in captions] == chunks


def test_our_bank_has_as_many_classes_as_asked_for(cfg, workload):
    contender = build(DINO_R1, cfg)
    contender.show_classes(300)
    assert len(contender.model.prompt_banks[None]) == 300
    assert contender.detect(workload.test_batch()) == 20


def test_label_embedding_fits_the_classes(cfg):
    assert fit_classes(cfg, 1203).model.bbox_head.num_classes == 1203
    assert fit_classes(cfg, 2).model.bbox_head.num_classes == cfg.model.bbox_head.num_classes == 30


def test_mmdets_encoding_is_mended_once_only(cfg, monkeypatch):
    calls = []
    monkeypatch.setattr(contenders, 'coordinate_to_encoding', lambda _, width: calls.append(width))
    at_published_width(None), at_published_width(None, 64), at_published_width(None, num_feats=256)
    assert calls == [128, 64, 128]
    for _ in range(2):
        build(MMDET, cfg)
        assert dino_layers.coordinate_to_encoding is at_published_width


def test_language_model_without_transformers(tmp_path):
    cfg, note = language_model_cfg(tmp_path)
    assert cfg == dict(type='StubLanguageModel')
    assert note == 'a stub, no BERT: transformers is not installed'


class FakeTransformers:
    """As much of the library as is asked for; saves no weights."""

    BertConfig = dict

    def __init__(self, version):
        self.__version__ = version

    class BertModel:
        def __init__(self, *args, **kwargs):
            pass

        def save_pretrained(self, folder):
            (Path(folder) / 'saved').touch()

    BertTokenizerFast = BertModel


def test_language_model_with_transformers(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'transformers', FakeTransformers('4.57.0'))
    cfg, note = language_model_cfg(tmp_path)
    vocabulary = (tmp_path / 'vocab.txt').read_text().splitlines()
    assert (tmp_path / 'saved').is_file() and cfg['name'] == str(tmp_path)
    assert cfg['type'] == 'BertModel' and note.startswith('BERT-base with random weights')
    assert len(vocabulary) == 6 + 1203 and vocabulary[6] == 'c0'


def test_a_too_new_transformers_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'transformers', FakeTransformers('5.0.1'))
    cfg, note = language_model_cfg(tmp_path)
    assert cfg == dict(type='StubLanguageModel')
    assert note == 'a stub, no BERT: mmdet needs transformers<5, not 5.0.1'


def test_tokens_of_a_caption():
    caption = StubLanguageModel.tokenizer(['c0. c12. '])
    assert caption.input_ids.shape == (1, 6)  # start, c0, ., c12, ., end
    assert [caption.char_to_token(char) for char in range(9)] == [1, 1, 2, None, 3, 3, 3, 4, None]
