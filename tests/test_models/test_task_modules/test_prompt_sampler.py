"""Exemplars: which, how often, and none."""

import torch
from conftest import TWO_IMAGES, make_batch

from mmdet_dino_r1.models.task_modules import InBatchPromptSampler


def test_one_box_per_class_of_the_batch():
    _, samples = make_batch(TWO_IMAGES)
    choice = InBatchPromptSampler()(samples)
    assert choice.labels.tolist() == [2, 5, 7]
    assert choice.image_index.tolist() == [0, 0, 1]
    # (8, 8, 40, 40) of 64 x 64
    torch.testing.assert_close(choice.boxes[2], torch.tensor([0.375, 0.375, 0.5, 0.5]))
    assert not choice.is_placeholder


def test_every_box_of_a_class_is_equally_likely():
    _, samples = make_batch([([[0, 0, 8, 8]] * 3, [1] * 3), ([[0, 0, 16, 16]], [1])])
    sampler = InBatchPromptSampler()
    draws = torch.cat([sampler(samples).image_index for _ in range(800)])
    # a quarter from the second image; 4 standard deviations are 0.061
    assert abs(draws.float().mean().item() - 0.25) < 0.061


def test_same_seed_same_choice():
    _, samples = make_batch(TWO_IMAGES)
    torch.manual_seed(3)
    first = InBatchPromptSampler()(samples)
    torch.manual_seed(3)
    assert torch.equal(first.boxes, InBatchPromptSampler()(samples).boxes)


def test_batch_without_boxes_gives_a_placeholder():
    _, samples = make_batch([([], []), ([], [])])
    choice = InBatchPromptSampler()(samples)
    assert choice.is_placeholder and len(choice) == 1
    assert choice.labels.tolist() == [-1]
    assert choice.boxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]
