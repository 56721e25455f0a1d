"""Prompts from class names: direction from the text, length of a visual prompt."""

import pytest
import torch
import torch.nn.functional as F
from conftest import TWO_IMAGES, build_tiny, make_batch
from model_variants import JOINT
from torch import nn

from mmdet_dino_r1.engine.text_bank import prompt_norm, text_prompt_bank
from mmdet_dino_r1.structures import BatchBoxes, TextEmbeddings

NAMES = ('cat', 'dog', 'cow')


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(0)
    return TextEmbeddings(NAMES, torch.randn(3, 12, generator=generator), dict(bert='tiny'))


@pytest.fixture(params=[dict(), JOINT], ids=['each box', 'joint'])
def model(request):
    alignment = dict(type='PromptTextContrastiveLoss', embeddings='not read here', text_dim=12)
    return build_tiny(text_alignment=alignment, **request.param).eval()


def test_length_of_what_leaves_a_layer_norm():
    norm = nn.LayerNorm(3)
    assert prompt_norm(norm).item() == pytest.approx(3**0.5)
    norm.weight.data = torch.tensor([2.0, 1.0, 2.0])
    norm.bias.data = torch.tensor([0.0, 4.0, 0.0])
    assert prompt_norm(norm).item() == pytest.approx(5)


def test_it_is_the_length_of_visual_prompts(model):
    norm = model.prompt_encoder.output_norm
    torch.manual_seed(2)
    norm.weight.data.uniform_(0.2, 3)
    norm.bias.data.normal_()
    images, samples = make_batch(TWO_IMAGES)
    with torch.no_grad():
        inputs, _ = model.pre_transformer(model.extract_feat(images), samples)
        boxes = BatchBoxes.read(samples, joint=model.prompt_encoder.joint)
        prompts = model.encode_exemplars(model.encode_image(inputs), boxes.chosen())
    mean_length = prompts.norm(dim=1).mean().item()
    assert prompt_norm(norm).item() == pytest.approx(mean_length, rel=0.1)


def test_rows_are_the_projected_texts_by_name(model, texts):
    bank = text_prompt_bank(model, texts, ['cow', 'cat'])
    assert bank.class_names == ('cow', 'cat')
    projected = model.text_feat_map(texts.embeddings[[2, 0]])
    torch.testing.assert_close(
        F.normalize(bank.embeddings, dim=1), F.normalize(projected, dim=1), check_stride=False
    )
    torch.testing.assert_close(bank.embeddings.norm(dim=1), torch.full((2,), 16.0))
    assert not bank.embeddings.requires_grad


def test_it_says_where_it_comes_from(model, texts):
    about = text_prompt_bank(model, texts, NAMES).provenance
    assert about['prompts'] == 'text' and about['shots'] == 0
    assert about['text_embeddings'] == dict(bert='tiny')
    assert len(about['weights']) == 16


def test_it_goes_the_way_of_every_bank(model, texts):
    model.set_prompt_bank(text_prompt_bank(model, texts, NAMES))
    images, samples = make_batch([([], [])] * 2)
    with torch.no_grad():
        found = model.predict(images, samples)
    assert all(len(sample.pred_instances) == 20 for sample in found)
    assert set(torch.cat([s.pred_instances.labels for s in found]).tolist()) <= {0, 1, 2}


def test_what_cannot_be_is_said(model, texts):
    with pytest.raises(ValueError, match='trained with text_alignment'):
        text_prompt_bank(build_tiny(), texts, NAMES)
    with pytest.raises(ValueError, match='width 5, model.text_feat_map takes 12'):
        text_prompt_bank(model, TextEmbeddings(('cat',), torch.ones(1, 5)), ['cat'])
    with pytest.raises(ValueError, match=r"'cats' \(near: cat\)"):
        text_prompt_bank(model, texts, ['cats'])
