"""Prompts that only select and classify, and prompts of all boxes of a class on an image."""

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch, with_prompts, without_dropout
from model_variants import VARIANTS

from mmdet_dino_r1.apis.weights import load_weights
from mmdet_dino_r1.structures import BatchBoxes, ExemplarChoice, PromptBank

LATE = {name: cfg for name, cfg in VARIANTS.items() if 'fusion' in cfg}
BANK = PromptBank(tuple('abcdefg'), torch.randn(7, 256, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_step_teaches_every_parameter(variant):
    """All losses, GRQO with its reference and denoising: DDP finds nothing unused."""
    model = without_dropout(
        build_tiny(dict(reward_weight=1.0, kl_weight=1.0), **VARIANTS[variant])
    ).train()
    model.reference_model.refresh(model)
    losses = model.loss(*make_batch(TWO_IMAGES))
    assert losses['grqo_kl'].item() == pytest.approx(0, abs=1e-6)  # it is the policy itself
    assert {'loss_cls', 'loss_bbox', 'loss_iou', 'enc_loss_cls', 'dn_loss_cls'} <= losses.keys()
    model.parse_losses(losses)[0].backward()
    unused = [name for name, value in model.named_parameters() if value.grad is None]
    assert not unused
    for name in ('prompt_encoder.content.weight', 'encoder.layers.0.ffn.layers.1.weight'):
        assert model.get_parameter(name).grad.abs().max() > 0


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_step_without_boxes(variant):
    model = build_tiny(dict(), **VARIANTS[variant]).train()
    model.reference_model.refresh(model)
    total, _ = model.parse_losses(model.loss(*make_batch([([], [])] * 2)))
    total.backward()
    assert total == 0 and all(value.grad is not None for value in model.parameters())


def test_what_is_switched_off_does_not_exist():
    fused, late = set(build_tiny().state_dict()), set(build_tiny(fusion=False).state_dict())
    parts = ('encoder.text_layers.', 'encoder.fusion_layers.')
    assert fused - late == {
        name
        for name in fused
        if name.startswith(parts)
        or name.startswith('decoder.layers.')
        and ('.cross_attn_text.' in name or '.norms.1.' in name)
    }
    assert not late - fused


@torch.no_grad()
@pytest.mark.parametrize('variant', LATE)
@pytest.mark.parametrize('chunk_size', [0, 2])
def test_the_image_is_encoded_once_and_sees_no_prompt(variant, chunk_size):
    model = build_tiny(**LATE[variant], test_cfg=dict(chunk_size=chunk_size)).eval()
    memories = []
    model.encoder.register_forward_hook(lambda _, given, made: memories.append(made[0]))
    for bank in (BANK, PromptBank(('x',), torch.ones(1, 256))):
        model.set_prompt_bank(bank)
        images, samples = make_batch(TWO_IMAGES)
        model.predict(images, samples)
    assert len(memories) == 2 and torch.equal(*memories)


@torch.no_grad()
def test_boxes_of_a_class_on_an_image_give_one_prompt_whatever_their_order():
    model = build_tiny(**VARIANTS['late_joint']).eval()
    images, samples = make_batch(TWO_IMAGES)
    boxes = [[4, 4, 24, 30], [30, 20, 60, 50], [10, 36, 26, 60]]
    drawn = [(boxes, [2, 5, 2]), ([[8, 8, 40, 40]], [7])]
    turned = [([boxes[i] for i in (2, 1, 0)], [2, 5, 2]), drawn[1]]
    (inputs, _) = model.pre_transformer(model.extract_feat(images), samples)
    image = model.encode_image(inputs)
    found = [model.prompts_for(image, with_prompts(samples, each)) for each in (drawn, turned)]
    assert found[0].labels.tolist() == [[2, 5], [7, -1]] and found[0].counts == [2, 1]
    torch.testing.assert_close(found[0].embeddings, found[1].embeddings, rtol=1e-5, atol=1e-5)
    # together they are not the mean of each
    single = ExemplarChoice(
        torch.zeros(2, dtype=torch.long),
        BatchBoxes.read(with_prompts(samples, drawn), 'prompt_instances').boxes[[0, 2]],
        torch.tensor([2, 2]),
    )
    mean = model.encode_exemplars(image, single).mean(dim=0)
    assert (found[0].embeddings[0, 0] - mean).abs().max() > 1e-3


@torch.no_grad()
def test_images_without_boxes_beside_others_give_no_prompt_and_no_detection():
    model = build_tiny(**VARIANTS['late_joint']).eval()
    images, samples = make_batch(TWO_IMAGES)
    mixed = with_prompts(samples, [([], []), ([[8, 8, 40, 40]], [7])])
    first, second = model.predict(images, mixed)
    assert len(first.pred_instances) == 0 and set(second.pred_instances.labels.tolist()) == {7}
    neither = model.predict(images, with_prompts(samples, [([], []), ([], [])]))
    assert all(len(sample.pred_instances) == 0 for sample in neither)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(prompts_from='memory'), 'needs model.fusion=False'),
        (dict(prompts_from='image', fusion=False), "is 'neck' or 'memory', got 'image'"),
    ],
)
def test_switches_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        build_tiny(**options)


@pytest.mark.parametrize(('trained', 'configured'), [(True, False), (False, True)])
def test_weights_of_the_other_kind_are_not_detected_with(tmp_path, trained, configured):
    state = build_tiny(fusion=trained).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    model = build_tiny(fusion=configured)
    message = f'trained with model.fusion={trained}, the config has model.fusion={configured}'
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / 'weights.pth')
    load_weights(build_tiny(fusion=trained), tmp_path / 'weights.pth')
    # of Grounding DINO's no prompt is known
    others = {name: value for name, value in state.items() if not name.startswith('prompt_')}
    torch.save(dict(state_dict=others), tmp_path / 'weights.pth')
    load_weights(model, tmp_path / 'weights.pth')
