"""Exemplars: which, how often, and none."""

import pytest
import torch
from conftest import TWO_IMAGES, make_batch

from mmdet_dino_r1.models.task_modules import InBatchPromptSampler
from mmdet_dino_r1.structures import BatchBoxes, Candidates


def candidates(*labels_of_images: list[int]) -> Candidates:
    """Boxes with these labels, image by image."""
    return Candidates(
        torch.tensor([label for labels in labels_of_images for label in labels]),
        torch.tensor([i for i, labels in enumerate(labels_of_images) for _ in labels]),
        len(labels_of_images),
    )


def test_one_box_per_class_of_the_batch():
    _, samples = make_batch(TWO_IMAGES)
    choice = InBatchPromptSampler()(BatchBoxes.read(samples))
    assert choice.labels.tolist() == [2, 5, 7]
    assert choice.local_images.tolist() == [0, 0, 1]
    # (8, 8, 40, 40) of 64 x 64
    torch.testing.assert_close(choice.local_boxes[2], torch.tensor([0.375, 0.375, 0.5, 0.5]))
    assert not choice.is_placeholder


def test_every_box_of_a_class_is_equally_likely():
    _, samples = make_batch([([[0, 0, 8, 8]] * 3, [1] * 3), ([[0, 0, 16, 16]], [1])])
    sampler = InBatchPromptSampler()
    draws = torch.cat([sampler(BatchBoxes.read(samples)).local_images for _ in range(800)])
    # a quarter from the second image; 4 standard deviations are 0.061
    assert abs(draws.float().mean().item() - 0.25) < 0.061


def test_same_seed_same_choice():
    _, samples = make_batch(TWO_IMAGES)
    torch.manual_seed(3)
    first = InBatchPromptSampler()(BatchBoxes.read(samples))
    torch.manual_seed(3)
    assert torch.equal(
        first.local_boxes, InBatchPromptSampler()(BatchBoxes.read(samples)).local_boxes
    )


def test_batch_without_boxes_gives_a_placeholder():
    _, samples = make_batch([([], []), ([], [])])
    choice = InBatchPromptSampler()(BatchBoxes.read(samples))
    assert choice.is_placeholder and len(choice) == 1
    assert choice.labels.tolist() == [-1]
    assert choice.local_boxes.tolist() == [[0.5, 0.5, 1.0, 1.0]]


def test_default_draws_are_the_first_of_each_class_in_random_order():
    """Pinned, so that a seed keeps meaning the same prompts."""
    boxes = candidates([3, 1, 3, 0], [1, 1, 3, 8], [], [8, 3])
    for seed in range(50):
        torch.manual_seed(seed)
        order = torch.randperm(10).tolist()
        first = [next(i for i in order if boxes.labels[i] == c) for c in (0, 1, 3, 8)]
        torch.manual_seed(seed)
        drawn = InBatchPromptSampler().draw(boxes)
        assert drawn.index.tolist() == first
        assert drawn.image_mask is None


# --- several exemplars per class ----------------------------------------------------------


def test_up_to_k_different_boxes_of_each_class():
    boxes = candidates([4, 4, 9], [4], [9])
    sampler = InBatchPromptSampler(exemplars_per_class=3)
    seen = set()
    for _ in range(100):
        index = sampler.draw(boxes).index
        assert boxes.labels[index].tolist() == [4, 4, 4, 9, 9], 'class 9 has but two'
        assert index.unique().tolist() == [0, 1, 2, 3, 4]
        seen.add(tuple(InBatchPromptSampler(exemplars_per_class=2).draw(boxes).index[:2].tolist()))
    assert {frozenset(pair) for pair in seen} == {frozenset(p) for p in [(0, 1), (0, 3), (1, 3)]}


def test_choice_with_several_exemplars_has_their_boxes():
    _, samples = make_batch(TWO_IMAGES)
    choice = InBatchPromptSampler(exemplars_per_class=2)(BatchBoxes.read(samples))
    assert choice.labels.tolist() == [2, 2, 5, 7] and choice.classes.tolist() == [2, 5, 7]
    assert choice.local_images.tolist() == [0, 0, 0, 1]
    # (4, 4, 24, 30) and (10, 36, 26, 60) of 64 x 64
    assert sorted((64 * choice.local_boxes[:2]).tolist()) == [[14, 17, 20, 26], [18, 48, 16, 24]]


# --- exemplars of other images ------------------------------------------------------------


@pytest.mark.parametrize('per_class', [1, 2])
def test_no_image_is_prompted_by_itself_where_that_can_be_helped(per_class):
    labels = ([1, 1, 2, 3], [1, 3, 3], [], [3])
    boxes = candidates(*labels)
    sampler = InBatchPromptSampler(per_class, prefer_other_image=True)
    for _ in range(100):
        drawn = sampler.draw(boxes)
        assert drawn.image_mask.shape == (len(drawn.index), 4)
        assert len(drawn.index.unique()) == len(drawn.index)
        for image in range(4):
            for label in (1, 2, 3):
                served = drawn.index[drawn.image_mask[:, image]]
                served = served[boxes.labels[served] == label]
                mine = (boxes.image_index == image) & (boxes.labels == label)
                others = (boxes.labels == label) & ~mine
                # class 2 occurs on one image alone, which then falls back to its own box
                wanted = others if others.any() else mine
                assert len(served) == min(per_class, int(wanted.sum()))
                assert wanted[served].all()


def test_two_exemplars_per_class_and_one_where_it_occurs_once():
    boxes = candidates([1, 2], [1], [1], [1])
    sampler = InBatchPromptSampler(prefer_other_image=True)
    for _ in range(50):
        drawn = sampler.draw(boxes)
        assert boxes.labels[drawn.index].tolist() == [1, 1, 2]
        first, second, alone = drawn.image_mask
        # the second serves the first's own image, the first all others
        own = [i for i in range(4) if not first[i]]
        assert len(own) == 1 and torch.equal(second, ~first) and alone.all()
        assert boxes.image_index[drawn.index[0]] == own[0]


def test_every_box_of_the_other_images_is_equally_likely():
    boxes = candidates([1], [1, 1], [1])
    sampler = InBatchPromptSampler(prefer_other_image=True)
    count = torch.zeros(4)
    for _ in range(900):
        drawn = sampler.draw(boxes)
        count[drawn.index[drawn.image_mask[:, 0]]] += 1
    assert count[0] == 0
    assert ((count[1:] / 900 - 1 / 3).abs() < 0.063).all(), '4 standard deviations'


# --- a cap on the number of prompts -------------------------------------------------------


def test_cap_keeps_random_classes_however_many_boxes_they_have():
    boxes = candidates([1] * 20 + [2], [3, 3])
    sampler = InBatchPromptSampler(max_prompts=2)
    count = torch.zeros(4)
    for _ in range(600):
        drawn = sampler.draw(boxes)
        kept = boxes.labels[drawn.index]
        assert len(kept) == 2 and kept[0] < kept[1]
        count[kept] += 1
    assert ((count[1:] / 600 - 2 / 3).abs() < 0.077).all(), '4 standard deviations'


def test_cap_that_is_not_reached_drops_nothing():
    _, samples = make_batch(TWO_IMAGES)
    choice = InBatchPromptSampler(max_prompts=3)(BatchBoxes.read(samples))
    assert choice.labels.tolist() == [2, 5, 7]
    boxes = BatchBoxes.read(samples)
    assert boxes.prompted(choice) is boxes


def test_boxes_without_a_prompt_are_no_targets():
    _, samples = make_batch(TWO_IMAGES)
    choice = InBatchPromptSampler(max_prompts=1)(BatchBoxes.read(samples))
    boxes = BatchBoxes.read(samples)
    kept = boxes.prompted(choice)
    (label,) = choice.labels.tolist()
    expected = [[x for x in labels if x == label] for _, labels in TWO_IMAGES]
    assert [of_image.tolist() for of_image in kept.labels.split(kept.counts)] == expected
    assert [of_image.tolist() for of_image in kept.candidates.labels.split(kept.counts)] == expected
    rows = [
        box
        for boxes, labels in TWO_IMAGES
        for box, x in zip(boxes, labels, strict=True)
        if x == label
    ]
    assert kept.pixels.tolist() == rows and (64 * kept.corners).tolist() == rows
    assert boxes.counts == [3, 1], 'left as they were'
    assert kept.img_shapes == boxes.img_shapes


def test_all_options_together():
    boxes = candidates([1, 1, 2, 3], [1, 3, 3], [2, 2])
    sampler = InBatchPromptSampler(2, prefer_other_image=True, max_prompts=2)
    for _ in range(50):
        drawn = sampler.draw(boxes)
        labels = boxes.labels[drawn.index]
        assert len(labels.unique()) == 2
        for image in range(3):
            served = drawn.index[drawn.image_mask[:, image]]
            assert (boxes.image_index[served] != image).all(), 'all classes occur twice'
            assert set(boxes.labels[served].tolist()) == set(labels.tolist())


@pytest.mark.parametrize('name', ['exemplars_per_class', 'max_prompts'])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f'{name} must be at least 1, got 0'):
        InBatchPromptSampler(**{name: 0})


# three boxes of class 2 on the first image, one of class 5; one of class 2 on the second
MANY = [
    ([[4, 4, 24, 30], [30, 20, 60, 50], [10, 36, 26, 60], [0, 0, 9, 9]], [2, 5, 2, 2]),
    ([[8, 8, 40, 40]], [2]),
]


def test_joint_exemplars_are_classes_on_images():
    boxes = BatchBoxes.read(make_batch(MANY)[1], joint=True)
    labels, image_index, num_images = boxes.exemplars
    assert (labels.tolist(), image_index.tolist(), num_images) == ([2, 5, 2], [0, 0, 1], 2)
    everything = boxes.chosen()
    assert everything.labels.tolist() == [2, 5, 2]
    assert everything.box_sets.tolist() == [0, 1, 0, 0, 2]
    chosen = boxes.chosen(torch.tensor([2, 0]))  # in the order asked for
    assert chosen.labels.tolist() == [2, 2] and chosen.classes.tolist() == [2]
    assert chosen.box_sets.tolist() == [1, 1, 1, 0]
    assert chosen.local_images.tolist() == [0, 0, 0, 1]
    assert torch.equal(chosen.local_boxes, boxes.boxes[[0, 2, 3, 4]])


def test_joint_exemplars_have_any_number_of_their_boxes():
    """One of three boxes, two or three: equally likely, and each box as often as the others."""
    boxes = BatchBoxes.read(make_batch(MANY[:1])[1], joint=True)
    torch.manual_seed(0)
    counts, seen = torch.zeros(4), torch.zeros(4)
    for _ in range(900):
        choice = InBatchPromptSampler()(boxes)
        assert choice.labels.tolist() == [2, 5] and choice.box_sets.tolist().count(1) == 1
        mine = choice.local_boxes[choice.box_sets == 0]
        counts[len(mine)] += 1
        seen += (boxes.boxes[:, None] == mine).all(dim=-1).any(dim=1)
    assert counts[0] == 0 and (counts[1:] - 300).abs().max() < 60
    assert (seen[[0, 2, 3]] - 600).abs().max() < 60


def test_joint_exemplars_of_other_images():
    sampler = InBatchPromptSampler(prefer_other_image=True)
    choice = sampler(BatchBoxes.read(make_batch(MANY)[1], joint=True))
    # class 5 is on the first image alone
    exemplars = zip(choice.labels.tolist(), images_of(choice), strict=True)
    assert dict(zip(exemplars, choice.image_mask.tolist(), strict=True)) == {
        (2, 0): [False, True],
        (2, 1): [True, False],
        (5, 0): [True, True],
    }


def images_of(choice):
    """The image of each exemplar."""
    images = dict(zip(choice.box_sets.tolist(), choice.local_images.tolist(), strict=True))
    return [images[row] for row in range(len(choice))]
