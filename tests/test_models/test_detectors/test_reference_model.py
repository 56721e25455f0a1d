"""The frozen snapshot: what it is, what it is not, when it runs."""

from copy import deepcopy

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch, without_dropout
from model_variants import VARIANTS

from mmdet_dino_r1.structures import BatchBoxes


def test_equals_the_policy_right_after_refresh():
    model = build_tiny(dict()).eval()
    model.reference_model.refresh(model)
    losses = without_dropout(model).train().loss(*make_batch(TWO_IMAGES))
    assert losses['grqo_kl'].item() == pytest.approx(0, abs=1e-9)


def test_kl_pulls_a_policy_that_drifted_a_little_back():
    """In single precision, through the whole model: down its slope the KL falls as predicted."""
    model = without_dropout(build_tiny(dict(kl_weight=1.0))).train()
    model.reference_model.refresh(model)
    weight = model.memory_trans_fc.weight
    with torch.no_grad():
        weight.add_(torch.randn_like(weight), alpha=0.01)

    def kl():
        torch.manual_seed(0)  # the same exemplars
        return model.loss(*make_batch(TWO_IMAGES))['loss_grqo_kl']

    before = kl()
    (slope,) = torch.autograd.grad(before, weight)
    assert before.item() < 0.1, 'a drift of ratios near 1'
    assert slope.any()
    step = 0.05 * before.item() / slope.square().sum()
    with torch.no_grad():
        weight.sub_(slope, alpha=step.item())
        fallen = before - kl()
    assert fallen.item() == pytest.approx(0.05 * before.item(), rel=0.2)


def test_shares_the_exemplars_that_the_policy_drew():
    """Drawn once. Many boxes of one class make another draw visible."""
    model = build_tiny(dict()).train()
    model.reference_model.refresh(model)
    seen = []
    sampler = model.prompt_sampler
    model.prompt_sampler = lambda samples: seen.append(sampler(samples)) or seen[-1]
    objectness = model.reference_model.objectness_logits
    given = []
    model.reference_model.objectness_logits = lambda *args: (
        given.append(args[2]) or objectness(*args)
    )
    model.loss(*make_batch(TWO_IMAGES))
    assert len(seen) == 1 and given[0] is seen[0]


@torch.no_grad()
@pytest.mark.parametrize('variant', [{}, *VARIANTS.values()], ids=['published', *VARIANTS])
def test_objectness_at_some_tokens_is_that_of_the_whole_path(variant):
    """The last layer computes the wanted tokens alone; invalid ones among them, too."""
    model = build_tiny(dict(), **variant).eval()
    images, samples = make_batch(TWO_IMAGES)
    samples[1].set_metainfo(dict(img_shape=(64, 40)))  # with padding
    choice = model.prompt_sampler(BatchBoxes.read(samples, joint=model.prompt_encoder.joint))
    encoder_inputs, _ = model.pre_transformer(model.extract_feat(images), samples)
    image = model.encode_image(encoder_inputs)
    prompts = model.training_prompts(image, choice).as_text_dict()
    encoded = model.forward_encoder(**image, text_dict=prompts)
    everything = model.bbox_head.cls_branches[-1](
        model.selectable(encoded['memory'], encoded['invalid_mask']),
        encoded['memory_text'],
        encoded['text_token_mask'],
    ).amax(dim=-1)
    indices = torch.randperm(everything.shape[1])[None, :30].repeat(2, 1)
    assert encoded['invalid_mask'].gather(1, indices).any()
    model.reference_model.refresh(model)
    torch.testing.assert_close(
        model.reference_model.objectness_logits(images, samples, choice, indices),
        everything.gather(1, indices),
        rtol=1e-5,
        atol=1e-5,
    )


def test_the_loss_may_keep_what_the_reference_returns():
    model = build_tiny(dict())
    model.reference_model.refresh(model)
    images, samples = make_batch(TWO_IMAGES)
    choice = model.prompt_sampler(BatchBoxes.read(samples))
    indices = torch.zeros(2, 3, dtype=torch.long)
    logits = model.reference_model.objectness_logits(images, samples, choice, indices)
    assert logits.shape == (2, 3) and not logits.is_inference() and not logits.requires_grad


def test_is_no_part_of_the_model():
    model = build_tiny(dict())
    before = list(model.state_dict()), len(list(model.parameters())), len(list(model.modules()))
    model.reference_model.refresh(model)
    assert before == (
        list(model.state_dict()),
        len(list(model.parameters())),
        len(list(model.modules())),
    )


def test_stays_put_through_a_step_and_in_eval_mode():
    model = build_tiny(dict()).train()
    model.reference_model.refresh(model)
    frozen = {name: value.clone() for name, value in model.reference_model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.parse_losses(model.loss(*make_batch(TWO_IMAGES)))[0].backward()
    optimizer.step()
    changed = 0
    for name, value in model.reference_model.state_dict().items():
        assert torch.equal(value, frozen[name]), name
        changed += not torch.equal(value, model.state_dict()[name])
    assert changed > 20
    snapshot = model.reference_model._snapshot
    assert not any(module.training for module in snapshot.modules())
    assert not any(parameter.requires_grad for parameter in snapshot.parameters())
    model.reference_model.refresh(model)
    for name, value in model.reference_model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_holds_no_decoder():
    model = build_tiny(dict())
    model.reference_model.refresh(model)
    names = {name.split('.')[0] for name in model.reference_model.state_dict()}
    assert names == {
        'backbone',
        'neck',
        'encoder',
        'bbox_head',
        'prompt_encoder',
        'level_embed',
        'memory_trans_fc',
        'memory_trans_norm',
    }


def test_never_runs_without_kl_or_before_grqo_starts():
    model = build_tiny(dict(kl_weight=0)).train()
    losses = model.loss(*make_batch(TWO_IMAGES))  # would raise if the reference were called
    assert 'grqo_kl' not in losses
    model = build_tiny(dict()).train()
    model.bbox_head.loss_grqo.active = False
    assert not any('grqo' in name for name in model.loss(*make_batch(TWO_IMAGES)))


def test_forgotten_hook_is_named():
    with pytest.raises(RuntimeError, match='ReferenceModelHook'):
        build_tiny(dict()).train().loss(*make_batch(TWO_IMAGES))


def test_a_copy_of_the_model_has_no_reference():
    model = build_tiny(dict())
    model.reference_model.refresh(model)
    assert not deepcopy(model).reference_model.is_ready
