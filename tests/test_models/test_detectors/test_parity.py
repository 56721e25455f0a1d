"""With the prompts given as text, the shared part is mmdet's own Grounding DINO."""

import pytest
import torch
from conftest import build_tiny, make_batch, tiny_model_cfg
from mmdet.models.layers.transformer import dino_layers
from mmdet.registry import MODELS

from mmdet_dino_r1.lab.benchmark.contenders import at_published_width, grounding_dino_cfg
from mmdet_dino_r1.structures import VisualPrompts


@pytest.fixture
def published_width(monkeypatch):
    """onedl-mmdetection 3.5.1's Grounding DINO does not run without (see PromptDecoder)."""
    monkeypatch.setattr(dino_layers, 'coordinate_to_encoding', at_published_width)


def grounding_dino(ours):
    """mmdet's detector of the same configuration and weights."""
    theirs = MODELS.build(grounding_dino_cfg(tiny_model_cfg(), dict(type='StubLanguageModel')))
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert {name.split('.')[0] for name in missing} == {'language_model', 'text_feat_map'}
    assert {name.split('.')[0] for name in unexpected} == {'prompt_encoder'}
    return theirs.eval()


def images_of_two_sizes():
    images, samples = make_batch([([], [])] * 2)
    samples[1].set_metainfo(dict(img_shape=(64, 40)))
    images[1, :, :, 40:] = 0
    return images, samples


@torch.no_grad()
@pytest.mark.parametrize('num_prompts', [1, 4, 30])
def test_every_stage_agrees(published_width, num_prompts):
    ours = build_tiny().eval()
    theirs = grounding_dino(ours)
    images, samples = images_of_two_sizes()
    prompts = VisualPrompts.shared(torch.randn(num_prompts, 256), torch.arange(num_prompts), 2)

    feats = ours.extract_feat(images)
    encoder_inputs, decoder_inputs = ours.pre_transformer(feats, samples)
    # in mmdet, too, each prompt sees itself alone and has position 0
    itself = torch.eye(num_prompts, dtype=torch.bool).expand(2, -1, -1)
    positions = torch.zeros(2, num_prompts, dtype=torch.long)
    text = dict(prompts.as_text_dict(), masks=itself, position_ids=positions)
    our_memory = ours.forward_encoder(**encoder_inputs, text_dict=text)
    our_outputs = ours.run_transformer(encoder_inputs, decoder_inputs, prompts)

    their_feats = theirs.extract_feat(images)
    their_inputs, _ = theirs.pre_transformer(their_feats, samples)
    for name in ('feat', 'feat_mask', 'feat_pos', 'level_start_index', 'valid_ratios'):
        assert torch.equal(encoder_inputs[name], their_inputs[name]), name
    their_memory = theirs.forward_encoder(**their_inputs, text_dict=text)
    their_selection, _ = theirs.pre_decoder(**their_memory, batch_data_samples=samples)
    their_outputs = theirs.forward_transformer(their_feats, text, samples)

    close = dict(rtol=1e-5, atol=1e-5)
    for name in ('memory', 'memory_text'):
        torch.testing.assert_close(our_memory[name], their_memory[name], **close)
    torch.testing.assert_close(
        our_outputs['selection'].boxes_unact.sigmoid(), their_selection['reference_points'], **close
    )
    torch.testing.assert_close(
        our_outputs['hidden_states'], their_outputs['hidden_states'], **close
    )

    for sample in samples:  # label i is token i
        sample.token_positive_map = {i + 1: [i] for i in range(num_prompts)}
    # mmdet asks for more detections than there can be
    theirs.bbox_head.test_cfg = dict(max_per_img=min(20, 10 * num_prompts))
    found = theirs.bbox_head.predict(**their_outputs, batch_data_samples=samples, rescale=False)
    mine = ours.bbox_head.predict(
        our_outputs['hidden_states'],
        our_outputs['references'],
        our_outputs['memory_text'],
        our_outputs['text_token_mask'],
        prompts,
        samples,
        rescale=False,
    )
    for one, other in zip(mine, found, strict=True):
        torch.testing.assert_close(one.scores, other.scores, **close)
        torch.testing.assert_close(one.bboxes / 64, other.bboxes / 64, **close)
        assert torch.equal(one.labels, other.labels)
