"""Late prompting computes what PET-DINO's own modules do (numbers: see ``pet_dino_data.py``)."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from pet_dino_data import PARITY, needs_pet_dino, small_state

from mmdet_dino_r1.structures import PromptBank, VisualPrompts
from mmdet_dino_r1.structures.prompt_instances import prompt_instances

pytestmark = needs_pet_dino
CLOSE = dict(rtol=0, atol=1e-4)  # prompts, memory, states
RENAMED = {
    'visual_prompt_model.content_embedding.': 'prompt_encoder.content.',
    'visual_prompt_model.universal_content_embedding.': 'prompt_encoder.image_content.',
    'visual_feat_map.': 'prompt_encoder.content_map.',
    'visual_prompt_encoder.ref_point_head.': 'prompt_encoder.position.',
    'visual_prompt_encoder.visual_layers.': 'prompt_encoder.layers.',
}


@cache
def numbers(name):
    with np.load(PARITY / f'{name}.npz') as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


def group(name, prefix):
    return {k[len(prefix) :]: v for k, v in numbers(name).items() if k.startswith(prefix)}


def ours(cfg: dict) -> ConfigDict:
    """A config of PET-DINO's model as one of ours."""
    cfg = ConfigDict(cfg)
    for key in ('language_model', 'visual_prompt_model', 'memory_bank'):
        del cfg[key]
    del cfg['encoder_first_then_visual_prompt_encoder'], cfg['visual_prompt_encoder']
    del cfg.decoder.layer_cfg['with_cross_attn_visual']
    del cfg.bbox_head.contrastive_cfg['independent_visual_bias']
    cfg.bbox_head.contrastive_cfg.pop('max_text_len')
    cfg.update(type='DINOR1', fusion=False, prompts_from='memory')
    cfg.prompt_encoder = dict(type='JointPromptEncoder', num_levels=cfg.num_feature_levels)
    cfg.bbox_head.update(type='DINOR1Head', loss_iou=dict(type='PromptGIoULoss', loss_weight=2.0))
    cfg.train_cfg.assigner.type = 'BatchedHungarianAssigner'
    for cost in cfg.train_cfg.assigner.match_costs:
        cost.type = dict(
            BinaryFocalLossCost='PromptFocalLossCost',
            BBoxL1Cost='PromptBBoxL1Cost',
            IoUCost='PromptGIoUCost',
        )[cost.type]
        cost.pop('iou_mode', None)
    cfg.test_cfg.pop('prompt_type')
    return cfg


@cache
def small_model():
    detector = MODELS.build(ours(json.loads((PARITY / 'model_config.json').read_text())))
    state = {}
    for name, value in small_state().items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        state[name] = value
    missing, unexpected = detector.load_state_dict(state, strict=False)
    assert not missing
    text = ('language_model.', 'text_feat_map.', 'encoder.text_layers.', 'encoder.fusion_layers.')
    assert all(
        name.startswith(text) or '.cross_attn_text.' in name or '.norms.1.' in name
        for name in unexpected
    )
    return detector.eval()


@pytest.fixture
def model():
    return small_model()


def sample_of(found, k):
    """Sample and image as the data pipeline hands them over."""
    img_shape = tuple(found[f'img_shape_{k}'].tolist())
    ori_shape = tuple(found[f'ori_shape_{k}'].tolist())
    scale = img_shape[1] / ori_shape[1], img_shape[0] / ori_shape[0]
    sample = DetDataSample(
        metainfo=dict(img_shape=img_shape, ori_shape=ori_shape, scale_factor=scale)
    )
    return found[f'image_{k}'], sample


def run(model, images, samples, prompts=None):
    """What is compared, for each image, with the parts' own results."""
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), False)
    samples = data['data_samples']
    encoder_inputs, decoder_inputs = model.pre_transformer(
        model.extract_feat(data['inputs']), samples
    )
    image = model.encode_image(encoder_inputs)
    prompts = prompts or model.prompts_for(image, samples)
    outputs = model.run_transformer(image, decoder_inputs, prompts)
    selection = outputs.pop('selection')
    detections = model.bbox_head.predict(
        **outputs, prompts=prompts, batch_data_samples=samples, rescale=True
    )
    return [
        dict(
            memory=image['memory'][k],
            features=image['feat'][k],
            prompts=prompts.embeddings[k][prompts.valid[k]],
            selected=selection.indices[k],
            selected_logit=selection.logits[k].max(dim=-1).values,
            initial_boxes=selection.boxes_unact[k].sigmoid(),
            hidden_states=outputs['hidden_states'][:, k],
            det_boxes=detections[k].bboxes,
            det_scores=detections[k].scores,
            det_labels=detections[k].labels,
        )
        for k in range(len(samples))
    ]


def compare(found, expected):
    """Bars: prompts, memory, states 1e-4; choices equal; scores 1e-5; boxes 1e-2 pixels."""
    for name in ('selected', 'det_labels'):
        assert torch.equal(found[name], expected[name].long()), name
    for name in ('features', 'memory', 'prompts', 'hidden_states', 'initial_boxes'):
        if name in expected:
            torch.testing.assert_close(
                found[name], expected[name].float(), **CLOSE, msg=lambda m, n=name: f'{n}: {m}'
            )
    torch.testing.assert_close(found['det_scores'], expected['det_scores'].float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found['det_boxes'], expected['det_boxes'].float(), rtol=0, atol=1e-2)


def interactive(k):
    found = numbers('visual_i')
    image, sample = sample_of(found, k)
    sample.prompt_instances = prompt_instances(
        found[f'prompt_boxes_original_{k}'].float(),
        found[f'prompt_labels_{k}'].long(),
        sample.ori_shape,
        sample.img_shape,
    )
    return image, sample


@torch.no_grad()
@pytest.mark.parametrize('k', [0, 1])
def test_visual_i(model, k):
    image, sample = interactive(k)
    (found,) = run(model, [image], [sample])
    compare(found, group('visual_i', f'single_{k}/'))
