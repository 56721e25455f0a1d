"""Training batches that are the same however many loader workers there are, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_rank
from torch.utils.data import Dataset, Sampler

from ..utils.randomness import derived_seed, seeded_on_cpu


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(AspectRatioBatchSampler):
    """mmdet's batches of like aspect ratio, with a seed for each sample and a place to begin at.

    mmengine seeds each loader worker once; what a sample draws then depends on all that the worker
    loaded before. Here the pipeline of every sample runs under a seed of its own, made of the run's
    seed, the epoch, the rank and its place. :class:`ResumeHook` sets ``skip`` to leave out the
    batches that a stopped run had taken, without loading them.

    It puts a ``__getitems__`` on the dataset, PyTorch's hook for fetching a batch at once, so
    that datasets, wrappers and pipelines of all kinds need no change.

    Args:
        sampler: over a dataset whose ``get_data_info`` tells ``height`` and ``width``; its
            ``seed`` and ``epoch`` count, where it has them.
        batch_size: images of a batch.
        drop_last: leave out a last batch of fewer images.

    Attributes:
        skip: batches that the next iteration leaves out at its beginning; later ones none.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.skip = 0
        sampler.dataset.__getitems__ = SeededSamples(sampler.dataset)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (index, seed)."""
        skip, self.skip = self.skip, 0
        # an iteration that was given up half-way leaves its images in the parent's buckets
        self._aspect_ratio_buckets = [[], []]
        run = (getattr(self.sampler, 'seed', None) or 0, getattr(self.sampler, 'epoch', 0))
        place = 0
        for number, batch in enumerate(super().__iter__()):
            if number >= skip:
                yield [
                    (index, derived_seed(*run, get_rank(), place + offset))
                    for offset, index in enumerate(batch)
                ]
            place += len(batch)


@dataclass
class SeededSamples:
    """Fetches the samples of a ``dataset`` for a batch of (index, seed), each under its seed."""

    dataset: Dataset

    def __call__(self, batch: Sequence[tuple[int, int]]) -> list:
        """Samples of a batch."""
        samples = []
        for index, seed in batch:
            with seeded_on_cpu(seed):
                samples.append(self.dataset[index])
        return samples
