"""The prompt-text contrast: values by hand, where the gradient goes, and the edges."""

from math import exp, log

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_dino_r1.models.losses import (
    FrozenProjection,
    PromptTextContrastiveLoss,
    mean_per_class,
    prompt_text_contrast,
)
from mmdet_dino_r1.structures import TextEmbeddings, save_text_embeddings

NAMES = ('cat', 'dog', 'cow', 'owl')


@pytest.fixture
def texts_file(tmp_path):
    texts = TextEmbeddings(NAMES, torch.eye(4), dict(bert='by hand'))
    return str(save_text_embeddings(texts, tmp_path / 'texts.safetensors'))


@pytest.fixture
def loss(texts_file):
    module = MODELS.build(
        dict(type='PromptTextContrastiveLoss', embeddings=texts_file, text_dim=4, loss_weight=1.0)
    )
    module.set_classes(NAMES)
    return module


# --- the function -----------------------------------------------------------------------


def test_orthogonal_pairs_by_hand():
    """Logits are scale * identity: the loss is log(1 + (n - 1) exp(-scale))."""
    value = prompt_text_contrast(3 * torch.eye(3), 0.1 * torch.eye(3), 2.0)
    assert value.item() == pytest.approx(log(1 + 2 * exp(-2)), rel=1e-6)


def test_both_directions_count():
    """Both prompts lie on the first text: log 2 for prompts, log(1 + e^±1) for texts."""
    prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    of_prompts = (log(1 + exp(-1)) + log(1 + exp(1))) / 2
    assert prompt_text_contrast(prompts, torch.eye(2), 1.0).item() == pytest.approx(
        (of_prompts + log(2)) / 2, rel=1e-6
    )


def test_length_of_the_vectors_does_not_matter():
    torch.manual_seed(0)
    prompts, texts = torch.randn(5, 7), torch.randn(5, 7)
    lengths = torch.rand(5, 1) + 0.1
    torch.testing.assert_close(
        prompt_text_contrast(prompts * lengths, texts / lengths, 10.0),
        prompt_text_contrast(prompts, texts, 10.0),
    )


def test_order_of_the_classes_does_not_matter():
    torch.manual_seed(0)
    prompts, texts, order = torch.randn(5, 7), torch.randn(5, 7), torch.randperm(5)
    torch.testing.assert_close(
        prompt_text_contrast(prompts[order], texts[order], 10.0),
        prompt_text_contrast(prompts, texts, 10.0),
    )


def test_equal_embeddings_give_the_log_of_their_number():
    same = torch.ones(4, 6, requires_grad=True)
    value = prompt_text_contrast(same, torch.ones(4, 6), 14.0)
    value.backward()
    assert value.item() == pytest.approx(log(4), rel=1e-6)
    assert torch.isfinite(same.grad).all()


def test_one_class_is_zero():
    assert prompt_text_contrast(torch.ones(1, 3), -torch.ones(1, 3), 14.0).item() == 0


def test_zero_vectors_stay_finite():
    prompts = torch.zeros(2, 3, requires_grad=True)
    value = prompt_text_contrast(prompts, torch.eye(3)[:2], 14.0)
    value.backward()
    assert value.item() == pytest.approx(log(2), rel=1e-6)
    assert torch.isfinite(prompts.grad).all()


def test_mean_is_over_all_boxes_of_a_class():
    prompts = torch.tensor([[1.0, 0.0], [4.0, 4.0], [3.0, 2.0], [9.0, 9.0]])
    means, classes = mean_per_class(prompts, torch.tensor([5, 2, 5, -1]))
    assert classes.tolist() == [2, 5]
    assert means.tolist() == [[4.0, 4.0], [2.0, 1.0]]


# --- the module -------------------------------------------------------------------------


def test_defaults_are_those_of_the_paper(texts_file):
    module = PromptTextContrastiveLoss(texts_file)
    assert module.loss_weight == 100
    assert module.text_dim == 768
    assert module.log_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_labels_find_their_rows(loss):
    """Dataset labels 3 and 1: owl and dog, whose texts are unit vectors 3 and 1."""
    prompts = 5 * torch.eye(4)[[3, 1]]
    out = loss(prompts, torch.tensor([3, 1]), nn.Identity())
    scale = 1 / 0.07
    assert out['loss_prompt_text'].item() == pytest.approx(log(1 + exp(-scale)), abs=1e-6)
    assert out['prompt_text_accuracy'].item() == 1
    assert out['prompt_text_scale'].item() == pytest.approx(scale, rel=1e-6)
    swapped = loss(prompts, torch.tensor([1, 3]), nn.Identity())
    assert swapped['loss_prompt_text'].item() == pytest.approx(scale, rel=1e-5)
    assert swapped['prompt_text_accuracy'].item() == 0


def test_rows_follow_the_datasets_order(loss):
    loss.set_classes(['owl', 'cat'])
    out = loss(torch.eye(4)[[3, 0]], torch.tensor([0, 1]), nn.Identity())
    assert out['prompt_text_accuracy'].item() == 1


def test_gradient_reaches_prompts_and_scale_but_not_text_nor_projection(loss):
    torch.manual_seed(0)
    projection = nn.Linear(4, 6)  # not even where it could learn
    prompts = torch.randn(3, 6, requires_grad=True)
    out = loss(prompts, torch.tensor([0, 1, 2]), projection)
    out['loss_prompt_text'].backward()
    assert (prompts.grad != 0).any(dim=1).all()
    assert loss.log_scale.grad != 0
    assert projection.weight.grad is None and projection.bias.grad is None
    assert [name for name, _ in loss.named_parameters()] == ['log_scale']


def test_weight_scales_the_loss(texts_file, loss):
    heavy = PromptTextContrastiveLoss(texts_file, text_dim=4)
    heavy.set_classes(NAMES)
    torch.manual_seed(0)
    arguments = torch.randn(3, 4), torch.tensor([0, 1, 2]), nn.Identity()
    light = loss(*arguments)['loss_prompt_text']
    torch.testing.assert_close(heavy(*arguments)['loss_prompt_text'], 100 * light)


@pytest.mark.parametrize('labels', [[2, 2], [-1, -1], [-1, 2]])
def test_one_class_or_none_is_zero_and_connected(loss, labels):
    prompts = torch.randn(2, 4, requires_grad=True)
    out = loss(prompts, torch.tensor(labels), nn.Identity())
    out['loss_prompt_text'].backward()
    assert out['loss_prompt_text'].item() == 0
    assert torch.equal(prompts.grad, torch.zeros(2, 4))
    assert loss.log_scale.grad.item() == 0
    other = loss(torch.randn(2, 4), torch.tensor([0, 1]), nn.Identity())
    assert list(out) == list(other), 'every process logs the same keys'


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    torch.manual_seed(0)
    projection = FrozenProjection(4, 6)
    prompts = (300 * torch.randn(4, 6)).to(dtype)  # whose squares overflow float16
    labels = torch.tensor([0, 1, 2, 2])
    with torch.autocast('cpu', torch.bfloat16):
        out = loss(prompts, labels, projection)
    exact = loss(prompts.float(), labels, projection)
    for name, value in out.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, exact[name]), name


def test_scale_is_held_down(loss):
    loss.log_scale.data.fill_(9.0)
    out = loss(torch.eye(4)[:2], torch.tensor([1, 0]), nn.Identity())
    out['loss_prompt_text'].backward()
    assert out['prompt_text_scale'].item() == pytest.approx(100, rel=1e-5)
    assert loss.log_scale.grad > 0, 'and can come down again'


@pytest.mark.parametrize(
    'arguments', [dict(init_scale=0), dict(init_scale=200), dict(loss_weight=-1)]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match='PromptTextContrastiveLoss'):
        PromptTextContrastiveLoss('f', **arguments)


# --- what is missing --------------------------------------------------------------------


def test_a_model_without_the_file_is_built(tmp_path):
    PromptTextContrastiveLoss(str(tmp_path / 'none'))


def test_missing_file_names_the_command_and_the_switch(tmp_path):
    module = PromptTextContrastiveLoss(str(tmp_path / 'none'))
    with pytest.raises(FileNotFoundError) as error:
        module.set_classes(NAMES)
    assert 'cache_text_embeddings CONFIG' in str(error.value)
    assert 'model.text_alignment=None' in str(error.value)


def test_missing_class_names_the_command_and_the_switch(loss):
    with pytest.raises(ValueError) as error:
        loss.set_classes(['cat', 'dogs'])
    assert "'dogs' (near: dog)" in str(error.value)
    assert 'model.text_alignment=None' in str(error.value)


def test_another_width_is_refused(texts_file):
    with pytest.raises(ValueError, match='width 4, but model.text_alignment.text_dim=768'):
        PromptTextContrastiveLoss(texts_file).set_classes(NAMES)


def test_without_classes_the_hook_is_named(texts_file):
    module = PromptTextContrastiveLoss(texts_file, text_dim=4)
    with pytest.raises(RuntimeError, match='TextAlignmentHook'):
        module(torch.eye(4), torch.arange(4), nn.Identity())


# --- the projection ---------------------------------------------------------------------


def test_projection_never_learns_and_knows_where_it_comes_from():
    projection = FrozenProjection(4, 6)
    assert [p.requires_grad for p in projection.parameters()] == [False, False]
    assert not projection.is_loaded
    projection.load_state_dict({}, strict=False)
    assert not projection.is_loaded
    projection.load_state_dict(FrozenProjection(4, 6).state_dict())
    assert projection.is_loaded
