"""Batches of images of one size, so that a batch gives what its images give alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from mmdet.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, Sampler


@DATA_SAMPLERS.register_module()
class SameSizeBatchSampler(BatchSampler):
    """Ends a batch wherever the image size changes; the order stays the sampler's.

    Padding images to a common size is felt: group norms average over it, convolutions see it at
    the border. Here nothing is padded, and detections do not depend on the batch size beyond
    rounding. Sort the dataset (``CocoJsonDataset(sort_by_size=True)``) and most batches are full.

    Sizes are those of the image files, as annotated; a test pipeline resizes equal sizes equally.

    Args:
        sampler: over a dataset whose ``get_data_info`` tells ``height`` and ``width``.
        batch_size: most images of a batch; None, where the loader's config has none: one.
        drop_last: not wanted in a test; must be False.

    Raises:
        ValueError: ``drop_last`` is True.
    """

    def __init__(self, sampler: Sampler, batch_size: int | None, drop_last: bool = False) -> None:
        if drop_last:
            raise ValueError('SameSizeBatchSampler serves tests and drops nothing.')
        super().__init__(sampler, 1 if batch_size is None else batch_size, drop_last)
        self._batches: list[list[int]] | None = None

    def _split(self) -> list[list[int]]:
        dataset = getattr(self.sampler, 'dataset', None) or self.sampler.data_source

        def size_of(index: int) -> tuple[int, int]:
            info = dataset.get_data_info(index)
            return info['height'], info['width']

        same_size = (list(group) for _, group in groupby(self.sampler, size_of))
        step = self.batch_size
        return [same[i : i + step] for same in same_size for i in range(0, len(same), step)]

    def __iter__(self) -> Iterator[list[int]]:
        self._batches = self._split()
        yield from self._batches

    def __len__(self) -> int:
        if self._batches is None:
            self._batches = self._split()
        return len(self._batches)
