"""Training batches that are the same however many loader workers there are, and after a resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_rank
from torch.utils.data import Dataset, Sampler

from ..utils.randomness import derived_seed, seeded_on_cpu


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(AspectRatioBatchSampler):
    """mmdet's batches of like aspect ratio, with a seed for each sample and a place to begin at.

    mmengine seeds each loader worker once; what a sample's augmentations draw then depends on the
    number of workers and on everything that the worker loaded before, so no resumed run could
    continue it. Here every sample of the stream has a seed of its own, made of the run's seed, the
    epoch, the rank and its place, under which its pipeline runs. And the first batches can be left
    out without loading them: :class:`ResumeHook` sets ``skip`` for a run that was stopped there.

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


class SeededSamples:
    """Fetches samples, each under its own seed.

    Args:
        dataset: any map-style dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, batch: Sequence[tuple[int, int]]) -> list:
        """Samples of a batch of (index, seed)."""
        samples = []
        for index, seed in batch:
            with seeded_on_cpu(seed):
                samples.append(self.dataset[index])
        return samples
