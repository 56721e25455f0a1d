"""The contrast of prompts: by hand, by loops, where its gradient goes, and what it remembers."""

import math

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine.logging import MessageHub
from model_variants import JOINT

from mmdet_dino_r1.models.losses import PromptContrastiveLoss

CONTRAST = dict(prompt_contrast=dict(type='PromptContrastiveLoss'))
NAME = 'loss_prompt_contrast'


@pytest.fixture(autouse=True)
def hub(monkeypatch) -> MessageHub:
    """What a runner tells of its steps: nothing yet, whatever ran before."""
    hub = MessageHub('of this test')
    monkeypatch.setattr(MessageHub, 'get_current_instance', lambda: hub)
    return hub


def contrast(num_classes=8, dim=6, memory_rate=0.0, **kwargs):
    return PromptContrastiveLoss(num_classes, dim, memory_rate=memory_rate, **kwargs)


def by_loops(prompts, labels, temperature, memory=None):
    """Box by box: minus the mean log-probability of its partners among all other samples.

    ``memory`` has a prompt for some classes.
    """
    samples = torch.stack([*prompts, *(memory or {}).values()])
    classes = [*labels, *(memory or {})]
    unit = samples / samples.norm(dim=1, keepdim=True)
    found = []
    for i, label in enumerate(labels):
        others = [j for j in range(len(classes)) if j != i]
        partners = [j for j in others if classes[j] == label >= 0]
        scores = {j: math.exp(float(unit[i] @ unit[j]) / temperature) for j in others}
        if partners:
            shares = [scores[j] / sum(scores.values()) for j in partners]
            found.append(-sum(math.log(share) for share in shares) / len(partners))
    return sum(found) / len(found)


def test_by_hand():
    """Two alike, one across: each of the pair meets e^(1/t) against e^0; the third is alone."""
    prompts = torch.tensor([[2.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    loss = contrast(dim=2, loss_weight=3.0, temperature=0.5)
    assert loss(prompts, torch.tensor([7, 7, 1]))[NAME].item() == pytest.approx(
        3 * math.log(1 + math.exp(-2)), rel=1e-5
    )


def test_many_boxes_are_what_loops_give_in_any_order():
    prompts, labels = torch.randn(9, 6), torch.tensor([3, 0, 3, 3, 5, 0, -1, -1, 2])
    value = contrast(temperature=0.2)(prompts, labels)[NAME]
    assert value.item() == pytest.approx(by_loops(prompts, labels.tolist(), 0.2), rel=1e-5)
    order = torch.randperm(9)
    again = contrast(temperature=0.2)(prompts[order], labels[order])[NAME]
    torch.testing.assert_close(again, value)


def test_gradient_draws_partners_together_and_pushes_others_away():
    prompts = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0.8, 0, 0.6]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    contrast(dim=3)(prompts, labels)[NAME].backward()
    moved = torch.nn.functional.normalize(prompts.detach() - 1e-3 * prompts.grad, dim=1)
    before = torch.nn.functional.normalize(prompts.detach(), dim=1)
    assert moved[0] @ moved[1] > before[0] @ before[1]
    assert moved[0] @ moved[2] < before[0] @ before[2]


@pytest.mark.parametrize('labels', [[-1], [4], [0, 1, 2], [-1, -1]])
def test_nothing_to_contrast_is_a_zero_that_stays_connected(labels):
    prompts = torch.randn(len(labels), 4, requires_grad=True)
    value = contrast(dim=4)(prompts, torch.tensor(labels))[NAME]
    value.backward()
    assert value.item() == 0 and prompts.grad.abs().max() == 0


WRONG = [
    dict(temperature=0.0),
    dict(loss_weight=-1.0),
    dict(memory_rate=-0.1),
    dict(memory_rate=1.5),
]


@pytest.mark.parametrize('wrong', WRONG)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}={next(iter(wrong.values()))}'):
        contrast(**wrong)


def test_the_memory_by_hand():
    """A class begins with its mean, then moves by the rate; absent ones stay."""
    loss = contrast(num_classes=4, dim=1, memory_rate=0.25)
    loss(torch.tensor([[2.0], [6.0], [1.0], [9.0]]), torch.tensor([0, 0, 2, -1]))
    assert loss.memory[:, 0].tolist() == [4, 0, 1, 0]
    loss(torch.tensor([[8.0], [3.0]]), torch.tensor([0, 3]))
    assert loss.memory[:, 0].tolist() == [5, 0, 1, 3]
    assert loss.seen.tolist() == [True, False, True, True]


def test_remembered_classes_are_samples_as_loops_say():
    loss, memory = contrast(memory_rate=0.5, temperature=0.2), {}
    for _ in range(4):
        prompts, labels = torch.randn(7, 6, requires_grad=True), torch.randint(-1, 8, (7,))
        value = loss(prompts, labels)[NAME]
        if memory:
            wanted = by_loops(prompts.detach(), labels.tolist(), 0.2, memory)
            assert value.item() == pytest.approx(wanted, rel=1e-5)
            value.backward()
            assert prompts.grad.abs().max() > 0
        assert not loss.memory.requires_grad
        memory = {label: loss.memory[label].clone() for label in loss.seen.nonzero()[:, 0].tolist()}
    assert len(memory) > 5


def test_a_box_alone_in_its_class_is_drawn_to_what_is_remembered():
    loss = contrast(num_classes=2, dim=2, memory_rate=0.2)
    loss(torch.eye(2), torch.tensor([0, 1]))
    prompt = torch.tensor([[0.6, 0.8]], requires_grad=True)
    loss(prompt, torch.tensor([0]))[NAME].backward()
    assert prompt.grad[0, 0] < 0 < prompt.grad[0, 1]


def test_a_training_that_starts_remembers_nothing_of_an_earlier_one(hub):
    loss = contrast(dim=2, memory_rate=0.2)
    loss(torch.eye(2), torch.tensor([0, 1]))
    for step, kept in ((7, [True, True, True]), (0, [False, False, True])):
        hub.update_info('iter', step)
        loss(torch.eye(2)[:1], torch.tensor([2]))
        assert loss.seen[:3].tolist() == kept, step


def test_it_adds_a_memory_of_the_training_classes_and_nothing_else():
    with_memory, without = build_tiny(**CONTRAST), build_tiny()
    num_classes, dim = with_memory.bbox_head.num_classes, with_memory.embed_dims
    added = with_memory.state_dict().keys() - without.state_dict().keys()
    shapes = {name: tuple(with_memory.state_dict()[name].shape) for name in added}
    assert shapes == {'prompt_contrast.memory': (num_classes, dim)}


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
