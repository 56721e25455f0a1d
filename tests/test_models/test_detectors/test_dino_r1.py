"""The detector: training, invariants of prediction, prompts."""

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch, with_prompts

from mmdet_dino_r1.structures import PromptBank

NO_BOXES = ([], [])


def bank(num_classes: int, dim: int = 256) -> PromptBank:
    generator = torch.Generator().manual_seed(4)
    names = tuple(f'class {i}' for i in range(num_classes))
    return PromptBank(names, torch.randn(num_classes, dim, generator=generator))


def detections(samples):
    return [
        (s.pred_instances.bboxes, s.pred_instances.scores, s.pred_instances.labels) for s in samples
    ]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# --- training ---------------------------------------------------------------------------


@pytest.mark.parametrize('grqo', [None, dict(kl_weight=0.04)])
@pytest.mark.parametrize(
    'ground_truth', [TWO_IMAGES, [TWO_IMAGES[0], NO_BOXES], [NO_BOXES, NO_BOXES]]
)
def test_losses_are_finite_and_reach_every_parameter(grqo, ground_truth):
    """Batches without boxes too: otherwise DDP waits for gradients that never come."""
    model = build_tiny(grqo).train()
    model.reference_model.refresh(model)
    loss, _ = model.parse_losses(model.loss(*make_batch(ground_truth)))
    loss.backward()
    assert torch.isfinite(loss)
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_batch_without_boxes_teaches_nothing():
    model = build_tiny(dict()).train()
    model.reference_model.refresh(model)
    losses = model.loss(*make_batch([NO_BOXES, NO_BOXES]))
    assert {name for name, value in losses.items() if value.item() != 0} == set()


def test_supervised_model_has_no_reference_and_no_grqo_terms():
    model = build_tiny().train()
    losses = model.loss(*make_batch(TWO_IMAGES))
    assert not model.reference_model.is_ready
    assert [name for name in losses if 'grqo' in name] == []


def test_grqo_adds_nothing_to_the_detection_losses():
    plain = build_tiny().train()
    grqo = build_tiny(dict(kl_weight=0)).train()
    grqo.load_state_dict(plain.state_dict())
    torch.manual_seed(9)
    supervised = plain.loss(*make_batch(TWO_IMAGES))
    torch.manual_seed(9)
    with_grqo = grqo.loss(*make_batch(TWO_IMAGES))
    for name, value in supervised.items():
        torch.testing.assert_close(with_grqo[name], value, msg=name)


def test_same_prompts_for_every_image_of_the_batch():
    model = build_tiny().train()
    seen = {}
    run = model.run_transformer
    model.run_transformer = lambda *args: seen.update(prompts=args[2]) or run(*args)
    model.loss(*make_batch(TWO_IMAGES))
    prompts = seen['prompts']
    assert prompts.labels.tolist() == [[0, 1, 2], [0, 1, 2]], 'classes 2, 5, 7 of the batch'
    assert torch.equal(prompts.embeddings[0], prompts.embeddings[1])


def test_label_beyond_the_embedding_is_named():
    model = build_tiny().train()
    with pytest.raises(ValueError, match='label 30.*num_classes=30'):
        model.loss(*make_batch([([[0, 0, 9, 9]], [30])]))


def test_activation_checkpointing_changes_nothing():
    plain = build_tiny().train()
    saving = build_tiny(encoder=dict(num_cp=1)).train()
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for model in (plain, saving):
        torch.manual_seed(2)
        model.parse_losses(model.loss(*make_batch(TWO_IMAGES)))[0].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad, msg=name)


def test_bfloat16_autocast_trains():
    model = build_tiny(dict()).train()
    model.reference_model.refresh(model)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*make_batch(TWO_IMAGES))
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# --- prediction -------------------------------------------------------------------------


@torch.no_grad()
def test_batch_size_and_order_change_nothing():
    model = build_tiny().eval()
    model.set_prompt_bank(bank(5))
    images, samples = make_batch([NO_BOXES] * 3)
    together = detections(model.predict(images, samples))
    apart = [
        detections(model.predict(images[i : i + 1], make_batch([NO_BOXES] * 3)[1][i : i + 1]))[0]
        for i in range(3)
    ]
    assert_same(together, apart)
    order = [2, 0, 1]
    shuffled = make_batch([NO_BOXES] * 3)[1]
    permuted = detections(model.predict(images[order], [shuffled[i] for i in order]))
    assert_same([together[i] for i in order], permuted)


@torch.no_grad()
def test_images_with_different_prompts_as_if_alone():
    """Padding prompts and neighbours must not leak."""
    model = build_tiny().eval()
    images, samples = make_batch([NO_BOXES] * 3)
    prompts = [
        ([[4, 4, 30, 30], [20, 20, 60, 60], [2, 30, 40, 60]], [3, 8, 8]),
        ([[10, 10, 50, 50]], [1]),
        ([], []),
    ]
    together = detections(model.predict(images, with_prompts(samples, prompts)))
    for i in range(3):
        alone = detections(
            model.predict(images[i : i + 1], with_prompts(samples[i : i + 1], prompts[i : i + 1]))
        )
        assert_same(together[i : i + 1], alone)
    assert set(together[0][2].tolist()) == {3, 8}
    assert set(together[1][2].tolist()) == {1}
    assert len(together[2][2]) == 0, 'no prompts, no detections'


@torch.no_grad()
def test_boxes_of_one_class_are_averaged():
    model = build_tiny().eval()
    images, samples = make_batch([NO_BOXES])
    boxes = [[4, 4, 30, 30], [20, 20, 60, 60]]
    carried = with_prompts(samples, [(boxes, [6, 6])])
    feats = model.extract_feat(images)
    encoder_inputs, _ = model.pre_transformer(feats, carried)
    both = model.prompts_for(encoder_inputs, carried)
    single = [
        model.prompts_for(encoder_inputs, with_prompts(samples, [([box], [6])])) for box in boxes
    ]
    assert both.labels.tolist() == [[6]]
    torch.testing.assert_close(both.embeddings, (single[0].embeddings + single[1].embeddings) / 2)


@torch.no_grad()
def test_1203_classes():
    model = build_tiny().eval()
    model.set_prompt_bank(bank(1203))
    images, samples = make_batch([NO_BOXES])
    ((boxes, scores, labels),) = detections(model.predict(images, samples))
    assert len(labels) == 20 and labels.max() < 1203
    assert (boxes >= 0).all() and (boxes <= 64).all()
    assert torch.equal(scores, scores.sort(descending=True).values)


@torch.no_grad()
def test_one_chunk_of_all_classes_equals_no_chunks():
    plain = build_tiny().eval()
    plain.set_prompt_bank(bank(6))
    images, samples = make_batch([NO_BOXES] * 2)
    expected = detections(plain.predict(images, samples))
    plain.test_cfg.chunk_size = 6
    assert_same(expected, detections(plain.predict(images, make_batch([NO_BOXES] * 2)[1])))


@torch.no_grad()
def test_chunks_share_image_features_and_are_merged():
    """Each chunk as its own bank, by hand: same detections, best first."""
    model = build_tiny().eval()
    images, samples = make_batch([NO_BOXES])
    whole = bank(6)
    model.set_prompt_bank(whole)
    model.test_cfg.chunk_size = 4
    calls = []
    backbone = model.backbone.forward
    model.backbone.forward = lambda x: calls.append(1) or backbone(x)
    ((_, scores, labels),) = detections(model.predict(images, samples))
    assert len(calls) == 1
    parts = []
    model.test_cfg.chunk_size = 0
    for rows in (slice(0, 4), slice(4, 6)):
        model.set_prompt_bank(PromptBank(whole.class_names[rows], whole.embeddings[rows]))
        ((_, s, lab),) = detections(model.predict(images, make_batch([NO_BOXES])[1]))
        parts += zip(s.tolist(), (lab + rows.start).tolist(), strict=True)
    parts.sort(reverse=True)
    assert [label for _, label in parts[:20]] == labels.tolist()
    torch.testing.assert_close(torch.tensor([s for s, _ in parts[:20]]), scores)


def test_no_prompts_is_explained():
    model = build_tiny().eval()
    with pytest.raises(RuntimeError, match='PromptBankHook'):
        model.predict(*make_batch([NO_BOXES]))
    images, samples = make_batch([NO_BOXES] * 2)
    samples[0] = with_prompts(samples[:1], [([[0, 0, 9, 9]], [0])])[0]
    with pytest.raises(RuntimeError, match='others do not'):
        model.predict(images, samples)


def test_bank_of_another_width_is_refused():
    with pytest.raises(ValueError, match='width 128, the model needs 256'):
        build_tiny().set_prompt_bank(bank(2, dim=128))


@torch.no_grad()
def test_tensor_mode_gives_every_layer():
    model = build_tiny().eval()
    model.set_prompt_bank(bank(3))
    logits, boxes = model(*make_batch([NO_BOXES]), mode='tensor')
    assert logits.shape == (2, 1, 10, 3) and boxes.shape == (2, 1, 10, 4)


@torch.no_grad()
def test_tensor_mode_without_prompts_has_blank_ones_to_count_with():
    model = build_tiny(bbox_head=dict(num_classes=7)).eval()
    with pytest.warns(UserWarning, match='No visual prompts: 7 blank ones'):
        logits, _ = model(*make_batch([NO_BOXES]), mode='tensor')
    assert logits.shape == (2, 1, 10, 7) and logits.isfinite().all()
    # with a box on the image itself
    images, samples = make_batch([NO_BOXES])
    logits, _ = model(images, with_prompts(samples, [([[0, 0, 9, 9]], [0])]), mode='tensor')
    assert logits.shape == (2, 1, 10, 1)
