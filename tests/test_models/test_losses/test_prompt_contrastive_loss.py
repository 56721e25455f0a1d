"""The contrast of prompts with one another: by hand, by loops, and where its gradient goes."""

import math

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from model_variants import JOINT

from mmdet_dino_r1.models.losses import PromptContrastiveLoss

CONTRAST = dict(prompt_contrast=dict(type='PromptContrastiveLoss'))
NAME = 'loss_prompt_contrast'


def by_loops(prompts, labels, temperature):
    """Box by box: minus the mean log-probability of its partners among all others."""
    unit = prompts / prompts.norm(dim=1, keepdim=True)
    found = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        partners = [j for j in others if labels[j] == label >= 0]
        scores = {j: math.exp(float(unit[i] @ unit[j]) / temperature) for j in others}
        if partners:
            shares = [scores[j] / sum(scores.values()) for j in partners]
            found.append(-sum(math.log(share) for share in shares) / len(partners))
    return sum(found) / len(found)


def test_by_hand():
    """Two alike, one across: each of the pair meets e^(1/t) against e^0; the third is alone."""
    prompts = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    loss = PromptContrastiveLoss(loss_weight=3.0, temperature=0.5)
    assert loss(prompts, torch.tensor([7, 7, 1]))[NAME].item() == pytest.approx(
        3 * math.log(1 + math.exp(-2)), rel=1e-5
    )


def test_many_boxes_are_what_loops_give_in_any_order():
    prompts, labels = torch.randn(9, 6), torch.tensor([3, 0, 3, 3, 5, 0, -1, -1, 2])
    value = PromptContrastiveLoss(1.0, 0.2)(prompts, labels)[NAME]
    assert value.item() == pytest.approx(by_loops(prompts, labels.tolist(), 0.2), rel=1e-5)
    order = torch.randperm(9)
    torch.testing.assert_close(
        PromptContrastiveLoss(1.0, 0.2)(prompts[order], labels[order])[NAME], value
    )


def test_gradient_draws_partners_together_and_pushes_others_away():
    prompts = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.8, 0, 0.6]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    PromptContrastiveLoss()(prompts, labels)[NAME].backward()
    moved = torch.nn.functional.normalize(prompts.detach() - 1e-3 * prompts.grad, dim=1)
    before = torch.nn.functional.normalize(prompts.detach(), dim=1)
    assert moved[0] @ moved[1] > before[0] @ before[1]
    assert moved[0] @ moved[2] < before[0] @ before[2]


@pytest.mark.parametrize('labels', [[-1], [4], [0, 1, 2], [-1, -1]])
def test_nothing_to_contrast_is_a_zero_that_stays_connected(labels):
    prompts = torch.randn(len(labels), 4, requires_grad=True)
    value = PromptContrastiveLoss()(prompts, torch.tensor(labels))[NAME]
    value.backward()
    assert value.item() == 0 and prompts.grad.abs().max() == 0


@pytest.mark.parametrize('wrong', [dict(temperature=0.0), dict(loss_weight=-1.0)])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}={next(iter(wrong.values()))}'):
        PromptContrastiveLoss(**wrong)


@pytest.mark.parametrize('variant', [{}, JOINT])
def test_in_the_detector_it_teaches_the_prompts_and_leaves_the_other_losses(variant):
    twice = [TWO_IMAGES[0], TWO_IMAGES[0]]  # every class on two images
    torch.manual_seed(0)
    model = build_tiny(**variant, **CONTRAST).train()
    batch = make_batch(twice)
    torch.manual_seed(1)
    losses = model.loss(*batch)
    assert losses[NAME] > 0
    gradients = torch.autograd.grad(
        losses[NAME], model.prompt_encoder.parameters(), retain_graph=True, allow_unused=True
    )
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    model.prompt_contrast = None
    torch.manual_seed(1)
    without = model.loss(*batch)
    assert without.keys() == losses.keys() - {NAME}
    assert all(torch.equal(value, losses[name]) for name, value in without.items())


def test_a_batch_without_boxes_reaches_every_parameter():
    model = build_tiny(**CONTRAST).train()
    losses = model.loss(*make_batch([([], []), ([], [])]))
    assert losses[NAME] == 0
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
