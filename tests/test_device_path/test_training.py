"""A training step on the pretended device: as on the CPU, with 3 waits and at most 12 copies.

The three: which labels there are, the match costs, whether all is finite. Nothing lies on the
device before the step but the model, the images and the samples, so the sizes of images and feature
maps, which later steps find there, are among the copies.
"""

from copy import deepcopy

import pytest
import torch
from conftest import TWO_IMAGES, build_tiny, make_batch
from mmengine import dist
from model_variants import JOINT
from pretended_device import host_of, to_device

from mmdet_dino_r1.utils.compat import torch_version

NO_BOXES = ([], [])
CROWD = ([[i, i, i + 8, i + 9] for i in range(50)], [i % 10 for i in range(50)])
SWIN = dict(
    backbone=dict(
        _delete_=True,
        type='FusedSwinTransformer',
        embed_dims=16,
        depths=[2, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_indices=(1, 2, 3),
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[32, 64, 128]),
)
QUALITY = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='PromptQualityFocalLoss')),
)
CONTRAST = dict(prompt_contrast=dict(type='PromptContrastiveLoss'))


def sampler(**options):
    return dict(prompt_sampler=dict(type='InBatchPromptSampler', **options))


# what GRQOLoss gets (None: VIS-GDINO), the batch, what the model gets
VARIANTS = {
    'VIS-GDINO': (None, TWO_IMAGES, {}),
    'DINO-R1': ({}, TWO_IMAGES, {}),
    'DINO-R1, policy form': (dict(advantage='policy'), TWO_IMAGES, {}),
    'DINO-R1, exemplars of its own for the reference': (
        dict(shared_exemplars=False),
        TWO_IMAGES,
        {},
    ),
    'Quality Focal Loss': ({}, TWO_IMAGES, QUALITY),
    'Quality Focal Loss, a crowd and no boxes': ({}, [CROWD, NO_BOXES], QUALITY),
    'contrast of prompts': ({}, TWO_IMAGES, CONTRAST),
    'Swin': ({}, TWO_IMAGES, SWIN),
    'exemplars of other images': (
        {},
        [*TWO_IMAGES, ([[20, 20, 50, 50]], [2])],
        sampler(exemplars_per_class=2, prefer_other_image=True),
    ),
    'few classes': ({}, TWO_IMAGES, sampler(max_prompts=2)),
    'an image without boxes': ({}, [TWO_IMAGES[0], NO_BOXES], {}),
    'no boxes': ({}, [NO_BOXES, NO_BOXES], {}),
    'a crowd': ({}, [CROWD, TWO_IMAGES[0]], {}),
    'six images': ({}, TWO_IMAGES * 3, {}),
    'activations recomputed': ({}, TWO_IMAGES, dict(encoder=dict(num_cp=1))),
    'late, jointly encoded': ({}, TWO_IMAGES, JOINT),
}


def tiny(grqo, **model):
    """A model that has moved on from its reference model, and the same on the device."""
    here = build_tiny(grqo, **model).train()
    snapshot = deepcopy(here)
    with torch.no_grad():
        for parameter in here.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    there = to_device(deepcopy(here))
    here.reference_model.refresh(snapshot)
    there.reference_model.refresh(to_device(snapshot))
    return here, there


def padded_batch(ground_truth):
    """Images of different sizes within the batch's, where their boxes leave room."""
    images, samples = make_batch(ground_truth)
    for index, sample in enumerate(samples):
        sample.set_metainfo(dict(img_shape=(64 - index % 2, 62)))
    return images, samples


def step(model, images, samples):
    """Losses and gradients of one step; chance is the same on both devices."""
    torch.manual_seed(3)
    losses = model.loss(images, samples)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    return losses, {name: parameter.grad for name, parameter in model.named_parameters()}


def hold_gradients(found: dict, expected: dict) -> None:
    """1e-4 of the parameter's largest; what is nothing but rounding counts as nothing."""
    largest = max(grad.abs().max() for grad in expected.values() if grad is not None)
    for name, grad in expected.items():
        assert (grad is None) == (found[name] is None), name
        if grad is not None:
            atol = float(1e-4 * grad.abs().max() + 1e-7 * largest)
            torch.testing.assert_close(host_of(found[name]), grad, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize('variant', VARIANTS)
def test_step(device, assert_equal, variant):
    if variant == 'activations recomputed' and torch_version() < (2, 2):
        pytest.skip('PyTorch 2.1 recomputes on no device that is only pretended')
    grqo, ground_truth, options = VARIANTS[variant]
    here, there = tiny(grqo, **options)
    batch = padded_batch(ground_truth)
    losses, gradients = step(here, *deepcopy(batch))
    device.clear()
    found, found_gradients = step(there, *to_device(batch))
    device.check(waits=3, copies=12)
    assert_equal(found, losses)
    hold_gradients(found_gradients, gradients)


def test_later_steps_find_the_sizes_there(device):
    """Grids, padding and scales of the same sizes are copied once."""
    _, there = tiny({})
    batch = to_device(padded_batch(TWO_IMAGES))
    step(there, *batch)
    first = device.copies.total()
    device.clear()
    step(there, *batch)
    device.check(waits=3, copies=first - 3)


def test_text_alignment(device, assert_equal):
    here, there = tiny({}, text_alignment=dict(type='PromptTextContrastiveLoss', embeddings=''))
    for model in (here, there):
        model.text_alignment._texts = torch.randn(10, 768, generator=torch.manual_seed(1))
    batch = padded_batch(TWO_IMAGES)
    losses, gradients = step(here, *deepcopy(batch))
    device.clear()
    found, found_gradients = step(there, *to_device(batch))
    device.check(waits=3, copies=12)
    assert_equal(found, losses, rtol=1e-4)  # it is a hundredfold
    hold_gradients(found_gradients, gradients)


def in_two_ranks(monkeypatch, run):
    """Run a function of the rank for both, with what either gives to the other.

    One process plays both ranks in turn, since gloo takes no tensors of this device. Rank 1 needs
    what rank 0 gave, which needs rank 1's labels, then its embeddings, then its gradients: hence
    the order. Summing waits for nobody on CUDA.
    """
    objects, sums = {}, {}

    def play(rank):
        calls = dict(objects=0, sums=0)

        def gather(mine):
            place = calls['objects']
            calls['objects'] += 1
            objects[place, rank] = mine
            return [objects.get((place, other), mine) for other in (0, 1)]

        def reduce(tensor):
            place = calls['sums']
            calls['sums'] += 1
            sums[place, rank] = tensor.detach().clone()
            if (place, 1 - rank) in sums and sums[place, 1 - rank].shape == tensor.shape:
                tensor += sums[place, 1 - rank]

        monkeypatch.setattr(dist, 'all_gather_object', gather)
        monkeypatch.setattr(dist, 'all_reduce', reduce)
        monkeypatch.setattr(dist, 'get_rank', lambda: rank)
        return run(rank)

    results = {rank: play(rank) for rank in (0, 1, 0, 1, 0)}
    return results[0], results[1]


@pytest.mark.parametrize('options', [{}, dict(exemplars_per_class=2, prefer_other_image=True)])
def test_prompts_of_two_ranks(device, assert_equal, monkeypatch, options):
    ranks = [padded_batch(TWO_IMAGES), padded_batch([([[20, 4, 44, 30]], [9]), NO_BOXES])]
    here, there = tiny({}, gather_prompts=True, **sampler(**options))

    def run_on(model, move):
        def run(rank):
            model.zero_grad()
            device.clear()
            result = step(model, *move(deepcopy(ranks[rank])))
            device.check(waits=3, copies=12)
            return result

        return run

    expected = in_two_ranks(monkeypatch, run_on(here, tuple))
    found = in_two_ranks(monkeypatch, run_on(there, to_device))
    assert expected[0][0]['loss_cls'] != expected[1][0]['loss_cls']
    for mine, cpus in zip(found, expected, strict=True):
        assert_equal(mine[0], cpus[0])
        hold_gradients(mine[1], cpus[1])
