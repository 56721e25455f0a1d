"""Training with several exemplars per class, with those of other images, with a cap."""

import pytest
import torch
from conftest import build_tiny, make_batch, without_dropout

from mmdet_dino_r1.structures import BatchBoxes

# class 1 on both images, class 2 on the first alone
BATCH = [
    ([[4, 4, 24, 30], [30, 20, 60, 50], [10, 36, 26, 60]], [1, 2, 1]),
    ([[8, 8, 40, 40], [2, 2, 30, 20]], [1, 4]),
]


def tiny(grqo=None, **sampler):
    """A model whose ``seen`` notes the prompts and what the head receives."""
    options = dict(type='InBatchPromptSampler', **sampler)
    model = without_dropout(build_tiny(grqo, prompt_sampler=options)).train()
    model.seen = {}
    run, head_loss = model.run_transformer, model.bbox_head.loss
    model.run_transformer = lambda *args: model.seen.update(prompts=args[2]) or run(*args)
    model.bbox_head.loss = lambda **inputs: model.seen.update(inputs) or head_loss(**inputs)
    return model


ALL_OPTIONS = [
    dict(exemplars_per_class=2),
    dict(prefer_other_image=True),
    dict(max_prompts=2),
    dict(exemplars_per_class=2, prefer_other_image=True, max_prompts=1),
]


@pytest.mark.parametrize('options', ALL_OPTIONS, ids=str)
def test_losses_reach_every_parameter(options):
    model = tiny(dict(), **options)
    model.reference_model.refresh(model)
    loss, _ = model.parse_losses(model.loss(*make_batch(BATCH)))
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.prompt_encoder.content.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('options', ALL_OPTIONS, ids=str)
def test_batch_without_boxes_teaches_nothing(options):
    losses = tiny(**options).loss(*make_batch([([], []), ([], [])]))
    assert all(value.item() == 0 for value in losses.values())


@pytest.mark.parametrize('options', ALL_OPTIONS, ids=str)
def test_reference_is_shown_the_same_prompts(options):
    """Equal right after its refresh, whatever was drawn."""
    model = tiny(dict(), **options)
    model.reference_model.refresh(model)
    for seed in range(3):
        torch.manual_seed(seed)
        losses = model.loss(*make_batch(BATCH))
        assert losses['grqo_kl'].item() == pytest.approx(0, abs=1e-9)


def test_reference_may_draw_exemplars_of_its_own():
    """As in the published code: the KL then starts above zero, and the classes stay the same."""
    model = tiny(dict(shared_exemplars=False))
    model.reference_model.refresh(model)
    drawn = []
    draw = model.prompt_sampler
    model.prompt_sampler = lambda samples: drawn.append(draw(samples)) or drawn[-1]
    torch.manual_seed(5)  # two different draws
    losses = model.loss(*make_batch(BATCH))
    own, shown = drawn
    assert model.seen['choice'] is own
    assert own.labels.tolist() == shown.labels.tolist() == [1, 2, 4]
    assert not torch.equal(own.local_boxes, shown.local_boxes)
    assert losses['grqo_kl'].item() > 1e-6


def test_prompt_is_the_mean_of_its_exemplars():
    model = tiny(exemplars_per_class=3)
    images, samples = make_batch(BATCH)
    model.loss(images, samples)
    prompts = model.seen['prompts']
    assert prompts.labels.tolist() == [[0, 1, 2]] * 2, 'classes 1, 2, 4'
    assert torch.equal(prompts.embeddings[0], prompts.embeddings[1])
    encoder_inputs, _ = model.pre_transformer(model.extract_feat(images), samples)
    each = model.encode_exemplars(encoder_inputs, model.seen['choice'])
    assert len(each) == 5, 'all three boxes of class 1'
    torch.testing.assert_close(prompts.embeddings[0, 0], each[:3].mean(dim=0))
    assert torch.equal(prompts.embeddings[0, 1:], each[3:])


def test_prompts_come_from_the_other_image():
    """By the gradient: what a prompt depends on."""
    model = tiny(prefer_other_image=True)
    images, samples = make_batch(BATCH)
    images.requires_grad_()
    model.loss(images, samples)
    prompts = model.seen['prompts'].embeddings
    assert prompts.shape == (2, 3, 256)
    sources = torch.zeros(2, 3, dtype=torch.long)
    for image in range(2):
        for prompt in range(3):
            (grad,) = torch.autograd.grad(
                prompts[image, prompt].square().sum(), images, retain_graph=True
            )
            depends = grad.abs().sum(dim=(1, 2, 3)) > 0
            assert depends.sum() == 1
            sources[image, prompt] = depends.long().argmax()
    # class 1 from the other image; class 2 is on the first alone, class 4 on the second
    assert sources.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_boxes_of_dropped_classes_are_neither_matched_nor_denoised():
    """As if the data had no such boxes."""
    model = tiny(dict(kl_weight=0), max_prompts=1)
    images, samples = make_batch(BATCH)
    draws = (model.prompt_sampler(BatchBoxes.read(samples)) for _ in range(100))
    choice = next(choice for choice in draws if choice.labels.tolist() == [1])
    model.prompt_sampler = lambda _: choice
    torch.manual_seed(5)
    capped = model.loss(images, samples)
    layout = model.seen['dn_meta']
    assert (layout['num_denoising_queries'], layout['num_denoising_groups']) == (16, 4)
    assert [len(sample.gt_instances) for sample in samples] == [3, 2], 'left as they were'

    _, fewer = make_batch([([BATCH[0][0][0], BATCH[0][0][2]], [1, 1]), ([BATCH[1][0][0]], [1])])
    model.prompt_sampler = lambda _: choice
    torch.manual_seed(5)
    expected = model.loss(images, fewer)
    assert {name: value.item() for name, value in capped.items()} == {
        name: value.item() for name, value in expected.items()
    }
