"""What grows with crowds and with many classes has a bound: sizes, counted rather than timed."""

import pytest
import torch
from conftest import build_tiny, make_batch, with_prompts

from mmdet_dino_r1.structures import PromptBank

BOX = [8.0, 8.0, 40.0, 40.0]


def shapes_of_a_step(samples_of, **model):
    """Sizes of one training step of two images, by what they are of."""
    detector = build_tiny(dict(), **model).train()
    detector.reference_model.refresh(detector)
    head, seen = detector.bbox_head, {}
    detector.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(queries=kwargs['query'].shape[1]), with_kwargs=True
    )
    head.assigner.cost = lambda logits, *args, cost=head.assigner.cost: (
        seen.update(logits=tuple(logits.shape)) or cost(logits, *args)
    )
    detector.prompt_encoder.layer.register_forward_hook(
        lambda module, args, out: seen.update(exemplars=tuple(out.shape))
    )
    losses = detector.loss(*make_batch(samples_of))
    assert all(loss.isfinite() for loss in losses.values())
    return seen


def test_a_crowd_of_500_boxes_each():
    """10 queries; 8 boxes are denoised, by 2 queries each, however many there are."""
    crowd = [([BOX] * 500, [index % 3 for index in range(500)])] * 2
    seen = shapes_of_a_step(crowd)
    assert seen['queries'] == 10 + 2 * 8
    assert seen['logits'] == (2 + 1, 2, 10, 3), 'decoder layers and the selection; 3 classes'
    # a prompt of one exemplar for each class: no more than 3 of the 1000 boxes on an image
    assert seen['exemplars'][0] == 2 and seen['exemplars'][1] <= 3


@pytest.mark.parametrize('max_prompts, width', [(None, 40), (7, 7)])
def test_classes_in_a_batch(max_prompts, width):
    """As wide as there are classes in the batch, not in the data set, or as `max_prompts` says."""
    many = [([BOX] * 20, list(range(20))), ([BOX] * 20, list(range(20, 40)))]
    seen = shapes_of_a_step(
        many,
        bbox_head=dict(num_classes=1203),
        prompt_sampler=dict(type='InBatchPromptSampler', max_prompts=max_prompts),
    )
    assert seen['logits'] == (3, 2, 10, width)
    assert seen['exemplars'][1] <= min(width, 20)


@torch.no_grad()
@pytest.mark.parametrize(
    'chunk_size, widths', [(0, [1203]), (400, [400, 400, 400, 3]), (1203, [1203])]
)
def test_1203_prompts_in_chunks(chunk_size, widths):
    model = build_tiny(test_cfg=dict(chunk_size=chunk_size)).eval()
    names = tuple(f'c{index}' for index in range(1203))
    model.set_prompt_bank(PromptBank(names, torch.randn(1203, 256)))
    seen = []
    model.query_selector.register_forward_hook(
        lambda module, args, out: seen.append(out.logits.shape[-1])
    )
    images, samples = make_batch([([], [])])
    found = model.predict(images, samples)[0].pred_instances
    assert seen == widths
    assert len(found) == 20, 'test_cfg.max_per_img, over all chunks'


@torch.no_grad()
def test_exemplars_of_an_image_share_one_pass():
    """Padded to the fullest image: 2 x 30, not 31 copies of the features."""
    model, seen = build_tiny().eval(), []
    model.prompt_encoder.layer.register_forward_hook(
        lambda module, args, out: seen.append(tuple(out.shape))
    )
    images, samples = make_batch([([], [])] * 2)
    prompts = [([BOX] * 30, list(range(30))), ([BOX], [0])]
    model.predict(images, with_prompts(samples, prompts))
    assert seen == [(2, 30, 256)]
