"""One batch out of several ranks', without processes: the collectives are played by hand."""

import pytest
import torch
from conftest import TWO_IMAGES, make_batch

from mmdet_dino_r1.models.task_modules import InBatchPromptSampler, gather_embeddings
from mmdet_dino_r1.models.task_modules.prompt_gathering import (
    SumOverRanks,
    dist,
    gather_candidates,
)
from mmdet_dino_r1.structures import BatchBoxes, Candidates, ExemplarChoice

NO_BOXES = ([], [])
OTHER_IMAGES = [([[2, 2, 20, 20]], [7]), NO_BOXES, ([[1, 1, 9, 9], [5, 5, 30, 30]], [5, 9])]


@pytest.fixture
def ranks(monkeypatch):
    """A function that draws on several ranks, given their batches."""

    def draw(sampler, batches, seed):
        batches = [BatchBoxes.read(make_batch(batch)[1]) for batch in batches]
        given = []

        def everyone_gives(mine):
            given.append(mine)
            return given

        monkeypatch.setattr(dist, 'all_gather_object', everyone_gives)
        for rank, batch in enumerate(batches):  # learn what each would give
            torch.manual_seed(seed + rank)
            monkeypatch.setattr(dist, 'get_rank', lambda rank=rank: rank)
            sampler.across_ranks(batch)
        monkeypatch.setattr(dist, 'all_gather_object', lambda mine: given)
        choices = []
        for rank, batch in enumerate(batches):
            monkeypatch.setattr(dist, 'get_rank', lambda rank=rank: rank)
            choices.append(sampler.across_ranks(batch))
        return choices

    return draw


def test_labels_of_all_ranks_are_one_batch(monkeypatch):
    own = Candidates(torch.tensor([4]), torch.tensor([1]), 2)
    first = Candidates(torch.tensor([7, 8, 7]), torch.tensor([0, 2, 2]), 3)
    monkeypatch.setattr(dist, 'all_gather_object', lambda mine: [(*first, 11), mine])
    monkeypatch.setattr(dist, 'get_rank', lambda: 1)
    joint = gather_candidates(own)
    assert joint.candidates.labels.tolist() == [7, 8, 7, 4]
    assert joint.candidates.image_index.tolist() == [0, 2, 2, 4]
    assert joint.candidates.num_images == 5
    assert (joint.first, joint.first_image, joint.seed) == (3, 3, 11)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(exemplars_per_class=2),
        dict(prefer_other_image=True),
        dict(exemplars_per_class=2, prefer_other_image=True, max_prompts=2),
    ],
    ids=str,
)
@pytest.mark.parametrize('other', [OTHER_IMAGES, [NO_BOXES]], ids=['boxes', 'no boxes'])
def test_ranks_draw_as_one_process_with_the_joint_batch(ranks, options, other):
    sampler = InBatchPromptSampler(**options)
    for seed in range(20):
        choices = ranks(sampler, [TWO_IMAGES, other], seed)
        (joint,) = ranks(sampler, [TWO_IMAGES + other], seed)
        assert joint.local_indices.tolist() == list(range(len(joint))), 'nothing lies elsewhere'
        owners = torch.cat([choice.local_indices for choice in choices])
        assert owners.sort().values.tolist() == list(range(len(joint))), 'each encoded once'
        first_image = 0
        for choice, batch in zip(choices, [TWO_IMAGES, other], strict=True):
            assert torch.equal(choice.labels, joint.labels)
            own = choice.local_indices
            images = slice(first_image, first_image + len(batch))
            if len(own):
                assert torch.equal(choice.local_images + first_image, joint.local_images[own])
                assert torch.equal(choice.local_boxes, joint.local_boxes[own])
            else:
                assert len(choice.local_boxes) == 1, 'something to encode'
            if joint.image_mask is not None:
                assert torch.equal(choice.image_mask, joint.image_mask[:, images])
            first_image += len(batch)


def test_exemplar_of_a_shared_class_comes_from_any_rank(ranks):
    sampler = InBatchPromptSampler()
    owner = []
    for seed in range(60):
        choices = ranks(sampler, [TWO_IMAGES, OTHER_IMAGES], seed)
        labels = choices[0].labels.tolist()
        assert labels == [2, 5, 7, 9]
        owner.append(labels.index(7) in choices[1].local_indices)
    assert 15 <= sum(owner) <= 45


def test_another_image_may_be_on_another_rank(ranks):
    """Class 7 occurs on one image of each rank: either is shown the other's."""
    sampler = InBatchPromptSampler(prefer_other_image=True)
    for seed in range(10):
        choices = ranks(sampler, [TWO_IMAGES, OTHER_IMAGES], seed)
        for choice, image in zip(choices, (1, 0), strict=True):
            served = ((choice.labels == 7) & choice.image_mask[:, image]).nonzero()[:, 0]
            assert len(served) == 1 and served[0] not in choice.local_indices


def test_no_boxes_anywhere_gives_the_placeholder(ranks):
    for choice in ranks(InBatchPromptSampler(), [[NO_BOXES], [NO_BOXES, NO_BOXES]], 0):
        assert choice.is_placeholder and choice.local_indices is None


def choice_with(local: list[int] | None, num_exemplars: int) -> ExemplarChoice:
    num_local = num_exemplars if local is None else max(1, len(local))
    return ExemplarChoice(
        local_images=torch.zeros(num_local).long(),
        local_boxes=torch.zeros(num_local, 4),
        labels=torch.arange(num_exemplars),
        local_indices=None if local is None else torch.tensor(local, dtype=torch.long),
    )


def test_nothing_shared_costs_nothing():
    embeddings = torch.randn(3, 4)
    assert gather_embeddings(embeddings, choice_with(None, 3)) is embeddings


def test_rows_of_other_ranks_are_theirs(monkeypatch):
    theirs = torch.tensor([[0.0, 0], [5, 6], [0, 0]])
    monkeypatch.setattr(dist, 'all_reduce', lambda rows: rows.add_(theirs))
    mine = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    rows = gather_embeddings(mine, choice_with([2, 0], 3))
    assert rows.tolist() == [[3, 4], [5, 6], [1, 2]]
    monkeypatch.setattr(dist, 'all_reduce', lambda grad: grad.mul_(3))  # three ranks agree
    rows[2].sum().backward()
    assert mine.grad.tolist() == [[3, 3], [0, 0]]


def test_rank_without_exemplars_stays_in_the_graph():
    nothing = torch.randn(1, 4, requires_grad=True)
    rows = gather_embeddings(nothing, choice_with([], 3))
    assert rows.tolist() == [[0.0] * 4] * 3
    rows.sum().backward()
    assert nothing.grad.tolist() == [[0.0] * 4]


def test_sum_leaves_its_argument_alone():
    tensor = torch.ones(2, 3).t().requires_grad_()
    total = SumOverRanks.apply(tensor)
    assert torch.equal(total, tensor) and total.data_ptr() != tensor.data_ptr()
