"""Batches, seeds and places of the training stream."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import (
    BaseDataset,
    DefaultSampler,
    InfiniteSampler,
    RepeatDataset,
    pseudo_collate,
)
from torch.utils.data import DataLoader

from mmdet_dino_r1.datasets import ResumableBatchSampler
from mmdet_dino_r1.utils.randomness import derived_seed, seeded_on_cpu


class Draws(BaseDataset):
    """Samples that tell their index and one draw of each generator; every third is upright."""

    def __init__(self):
        super().__init__(ann_file='', pipeline=[self.draw])

    def load_data_list(self):
        return [dict(index=i, width=30 if i % 3 == 0 else 50, height=40) for i in range(7)]

    @staticmethod
    def draw(sample):
        drawn = random.random(), np.random.rand(), torch.rand(()).item()
        return dict(draw=(sample['index'], *drawn))


def loader_of(dataset=None, sampler=DefaultSampler, workers=0, skip=0, epoch=0, seed=5):
    dataset = dataset or Draws()
    sampler = sampler(dataset, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    batches = ResumableBatchSampler(sampler, batch_size=2)
    batches.skip = skip
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, collate_fn=pseudo_collate
    )


def draws(loader, limit=4):
    return [batch['draw'] for batch, _ in zip(loader, range(limit), strict=False)]


def test_each_image_once_and_like_aspect_ratios_together():
    batches = [[index for index, _ in batch] for batch in loader_of().batch_sampler]
    assert sorted(sum(batches, [])) == list(range(7)) and len(batches) == 4
    for full in batches[:-1]:
        assert len({index % 3 == 0 for index in full}) == 1


@pytest.mark.parametrize('workers', [1, 2])
def test_the_number_of_workers_changes_nothing(workers):
    assert draws(loader_of(workers=workers)) == draws(loader_of())


def test_a_sample_draws_alike_whatever_was_loaded_before():
    whole = draws(loader_of())
    assert draws(loader_of(skip=2)) == whole[2:]
    assert (
        draws(loader_of(sampler=InfiniteSampler, skip=3), 2)
        == draws(loader_of(sampler=InfiniteSampler), 5)[3:]
    )


def test_the_next_iteration_leaves_nothing_out():
    loader = loader_of(skip=2)
    assert len(draws(loader)) == 2 and draws(loader) == draws(loader_of())


def test_other_epochs_and_seeds_draw_otherwise():
    def of_image_0(**options):
        (found,) = [
            draw
            for batch in draws(loader_of(**options))
            for draw in zip(*batch, strict=True)
            if draw[0] == 0
        ]
        return found[1:]

    assert len({of_image_0(), of_image_0(epoch=1), of_image_0(seed=6)}) == 3


def test_an_iteration_given_up_half_way_leaves_nothing_behind():
    loader = loader_of()
    next(iter(loader.batch_sampler))
    assert draws(loader) == draws(loader_of())


def test_wrapped_datasets_need_no_change():
    found = draws(loader_of(RepeatDataset(Draws(), times=2)), 7)
    places = {draw for batch in found for draw in zip(*batch, strict=True)}
    assert len(places) == 14  # the second turn of an image draws otherwise


def test_the_process_keeps_its_own_generators():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded_on_cpu(9):
        inside = random.random(), torch.rand(())
    assert torch.equal(torch.rand(2), expected)
    with seeded_on_cpu(9):
        assert (random.random(), torch.rand(())) == inside


def test_seeds_of_neighbours_are_unrelated_and_fixed():
    places = [(0,), (0, 0), (0, 1), (1, 0), (1, 0, 0)]
    assert len({derived_seed(*place) for place in places}) == len(places)
    assert derived_seed(7) == int(np.random.SeedSequence((1, 7)).generate_state(1)[0])
