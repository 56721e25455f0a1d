"""What is said when a checkpoint is loaded, and what is done."""

import logging

import pytest
import torch
from conftest import CONFIGS, build_tiny, mm_grounding_dino_cfg
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint

from mmdet_dino_r1.models.detectors import warm_start_report

# of MM Grounding DINO, and of the original
CONTRASTIVE = dict(
    mm=dict(log_scale='auto', bias=True), original=dict(log_scale='none', bias=False)
)


@MODELS.register_module()
class TinyLanguageModel(torch.nn.Module):
    """Has BERT's width and the names of BERT's parameters, few of them."""

    def __init__(self, **kwargs) -> None:
        super().__init__()
        body = torch.nn.Module()
        body.language_dim = 768
        body.model = torch.nn.ModuleDict(
            dict(embeddings=torch.nn.Embedding(4, 768), encoder=torch.nn.Linear(768, 768))
        )
        self.language_backbone = torch.nn.Module()
        self.language_backbone.body = body


def shallow(model: Config) -> Config:
    """Full widths and levels; one block per stage and two layers of the transformer."""
    model.backbone.depths = [1, 1, 1, 1]
    model.backbone.init_cfg = None
    model.encoder.num_layers = model.decoder.num_layers = 2
    model.encoder.num_cp = 0  # in mmdet it asks for fairscale
    return model


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Random numbers in every parameter; some are memory as it came until ``init_weights``."""
    for parameter in model.parameters():
        parameter.data.normal_()
    return model


def grounding_dino(size: str, contrastive: str, num_classes: int) -> torch.nn.Module:
    """mmdet's own model with random weights."""
    cfg = shallow(mm_grounding_dino_cfg(size))
    cfg.language_model = dict(type='TinyLanguageModel')
    cfg.bbox_head.num_classes = num_classes
    cfg.bbox_head.contrastive_cfg = dict(CONTRASTIVE[contrastive], max_text_len=256)
    return MODELS.build(cfg)


def test_report_names_every_fate():
    own = {
        'backbone.a': torch.zeros(2),
        'head.b': torch.zeros(3),
        'prompt_encoder.c': torch.zeros(1),
    }
    given = {
        'backbone.a': torch.zeros(2),
        'head.b': torch.zeros(4),
        'language_model.x': torch.zeros(1),
        'language_model.y': torch.zeros(1),
        'other.z': torch.zeros(1),
    }
    assert warm_start_report(own, given).splitlines() == [
        '  loaded: 1 of 3 tensors',
        '  new, keeps its initial values: prompt_encoder (1)',
        '  ignored, not part of this model: language_model (2), other (1)',
        '    (language_model: visual prompts take the place of text)',
        '  NOT loaded, shape differs: head.b: checkpoint (4,), model (3,)',
    ]


def test_grounding_dino_checkpoint_loads_by_name(tmp_path):
    """As ``load_from`` does it; the denoising labels have another class count."""
    source = build_tiny(bbox_head=dict(num_classes=256))
    state = {k: v for k, v in source.state_dict().items() if not k.startswith('prompt_encoder')}
    state['text_feat_map.weight'] = torch.zeros(256, 8)
    path = tmp_path / 'grounding_dino.pth'
    torch.save(dict(state_dict=state, meta={}), path)

    torch.manual_seed(8)
    model = build_tiny()
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_checkpoint(model, str(path), map_location='cpu')
    for name, value in model.state_dict().items():
        is_new = (
            name.startswith('prompt_encoder') or name == 'dn_query_generator.label_embedding.weight'
        )
        assert torch.equal(value, fresh[name] if is_new else source.state_dict()[name]), name


def test_report_is_printed(tmp_path):
    model = build_tiny()
    state = dict(model.state_dict())
    state['query_embedding.weight'] = torch.zeros(7, 256)
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=state), path)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        load_checkpoint(model, str(path))
    finally:
        logger.removeHandler(handler)
    printed = '\n'.join(lines)
    assert 'DINOR1 from checkpoint' in printed
    assert 'NOT loaded, shape differs: query_embedding.weight: checkpoint (7, 256)' in printed


@pytest.mark.parametrize('contrastive', CONTRASTIVE)
@pytest.mark.parametrize('size, num_classes', [('t', 256), ('b', 256), ('l', 256), ('t', 80)])
def test_checkpoints_of_mmdets_own_models(tmp_path, size, num_classes, contrastive):
    """Every parameter but the prompt encoder's and, of other classes, the denoising labels'."""
    torch.manual_seed(1)
    source = filled(grounding_dino(size, contrastive, num_classes))
    path = tmp_path / 'grounding_dino.pth'
    torch.save(dict(state_dict=source.state_dict(), meta=dict(dataset_meta=None)), path)

    torch.manual_seed(2)
    cfg = shallow(Config.fromfile(CONFIGS / f'dino_r1_swin_{size}_finetune.py').model)
    cfg.bbox_head.num_classes = 256
    cfg.bbox_head.contrastive_cfg = CONTRASTIVE[contrastive]
    model = filled(MODELS.build(cfg))
    given, fresh = source.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
    report = warm_start_report(fresh, given)
    new = sum(name.startswith('prompt_encoder') for name in fresh)
    misfits = int(num_classes != 256)
    assert f'loaded: {len(fresh) - new - misfits} of {len(fresh)} tensors' in report
    assert f'new, keeps its initial values: prompt_encoder ({new})' in report
    assert 'ignored, not part of this model: language_model (3), text_feat_map (2)' in report
    assert report.count('NOT loaded, shape differs') == misfits

    load_checkpoint(model, str(path), map_location='cpu')
    label_embedding = 'dn_query_generator.label_embedding.weight'
    for name, value in model.state_dict().items():
        kept = name.startswith('prompt_encoder') or (misfits and name == label_embedding)
        assert torch.equal(value, fresh[name] if kept else given[name]), name
