"""What is said when a checkpoint is loaded, and what is done."""

import logging

import torch
from conftest import build_tiny
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_checkpoint

from mmdet_dino_r1.models.detectors import warm_start_report


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
