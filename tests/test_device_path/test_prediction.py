"""Prediction on the pretended device: the CPU's detections, waiting once a batch at most.

With a bank there is nothing to wait for; exemplars that images bring, suppression, and negatives
that leave detections out are each worth one wait: which classes there are, what overlaps, how many
are left.
"""

from copy import deepcopy

import pytest
import torch
from conftest import build_tiny, make_batch, with_prompts
from model_variants import JOINT
from pretended_device import Pretended, to_device

from mmdet_dino_r1.structures import PromptBank

EXEMPLARS = [
    ([[4, 4, 30, 30]], [3]),
    ([[9, 9, 50, 50], [1, 1, 9, 9], [20, 20, 30, 40]], [1, 2, 2]),
    ([], []),
]
NMS = dict(_delete_=True, type='nms', iou_threshold=0.5)

# what test_cfg gets, the images' own exemplars, the names of their datasets, waits
CASES = {
    'bank': ({}, None, None, 0),
    'a bank for each dataset': ({}, None, ['a', 'b', None], 0),
    'own exemplars': ({}, EXEMPLARS, None, 1),
    'no exemplars': ({}, [([], [])] * 3, None, 1),
    'chunks of a bank': (dict(chunk_size=2), None, None, 0),
    'chunks of exemplars': (dict(chunk_size=1, max_per_chunk=5), EXEMPLARS, None, 1),
    'suppression': (dict(nms=NMS), None, None, 1),
    'smooth negatives': (dict(negatives=dict(nearest=2, temperature=1)), None, None, 0),
    'hard negatives, own exemplars': (dict(negatives=dict(nearest=1)), EXEMPLARS, None, 2),
    'suppression and own exemplars': (dict(nms=NMS), EXEMPLARS, None, 2),
}


def bank(*names: str, seed: int) -> PromptBank:
    return PromptBank(names, torch.randn(len(names), 256, generator=torch.manual_seed(seed)))


@torch.no_grad()
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('variant', [{}, JOINT], ids=['each box', 'joint'])
def test_predict(device, assert_equal, case, variant):
    test_cfg, exemplars, names, waits = CASES[case]
    model = build_tiny(test_cfg=deepcopy(test_cfg), **variant).eval()
    images, samples = make_batch([([], [])] * 3)
    for index, sample in enumerate(samples):
        sample.set_metainfo(dict(img_shape=(64 - 9 * index, 61), scale_factor=(0.7, 0.3)))
    if exemplars is not None:
        samples = with_prompts(samples, exemplars)
    if names is not None:
        model.set_prompt_bank(bank('x', seed=4), 'a')
        model.set_prompt_bank(bank('y', 'x', seed=5), 'b')
        for sample, name in zip(samples, names, strict=True):
            sample.set_metainfo(dict(dataset_name=name))
    model.set_prompt_bank(bank(*'abcde', seed=1))

    expected = model.predict(images, deepcopy(samples))
    there = to_device(deepcopy(model))
    device.clear()
    found = there.predict(to_device(images), to_device(samples))
    device.check(waits=waits, copies=8)
    for one, other in zip(found, expected, strict=True):
        one, other = one.pred_instances, other.pred_instances
        assert all(isinstance(value, Pretended) for value in one.values())
        assert (other.labels >= 0).all(), 'padding prompts give no detections'
        assert len(other) > 0 or exemplars is not None
        assert_equal(one.scores, other.scores)
        assert_equal(one.bboxes / 200, other.bboxes / 200)  # 64 pixels over 0.3
        assert_equal(one.labels, other.labels)


@torch.no_grad()
def test_twelve_images_wait_no_more(device):
    """Neither waits nor copies grow with the batch."""
    model = to_device(build_tiny(test_cfg=dict(nms=dict(NMS))).eval())
    images, samples = make_batch([([], [])] * 12)
    samples = with_prompts(samples, [EXEMPLARS[1]] * 12)
    model.predict(to_device(images), to_device(samples))
    device.check(waits=2, copies=8)


@torch.no_grad()
def test_raw_outputs(device, assert_equal):
    """What ``mode='tensor'`` gives, and the FLOP counter runs."""
    model = build_tiny().eval()
    model.set_prompt_bank(bank(*'abcde', seed=1))
    images, samples = make_batch([([], [])] * 2)
    expected = model(images, samples, mode='tensor')
    there = to_device(deepcopy(model))
    device.clear()
    found = there(to_device(images), to_device(samples), mode='tensor')
    device.check(waits=0, copies=8)
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other, rtol=1e-4)
