"""What loading an image costs, and how many workers keep up with the training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

import torch
from mmdet.registry import DATASETS
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from torch.utils.data import Dataset

from ...config.tested_sets import innermost_dataset
from .contenders import Contender
from .measure import seconds_of
from .phases import PhaseClock


def loading_figures(cfg: ConfigDict, contender: Contender | None, rounds: int, images: int) -> dict:
    """Cost of training images of a whole config, by transform, beside a contender's steps."""
    dataset = DATASETS.build(innermost_dataset(cfg.train_dataloader.dataset))
    milliseconds = pipeline_figures(dataset, images)
    batch_size = cfg.train_dataloader.batch_size
    loading = batch_size * sum(milliseconds.values()) / 1000
    figures = {'images of a batch': batch_size, 'batch, s': loading}
    if contender is not None:
        contender.clock.restart(on=False)
        batch = pseudo_collate([dataset[index % len(dataset)] for index in range(batch_size)])
        taken = [seconds_of(contender, contender.step, batch) for _ in range(rounds + 1)]
        figures |= {'step, s': median(taken[1:])} | keeping_up(loading, median(taken[1:]))
    return figures | {'ms per image': {'in training': milliseconds}}


def keeping_up(loading: float, step: float) -> dict[str, float]:
    """What a training waits for, by seconds of a batch and a step, in turn without workers."""
    return {
        'waiting without workers, %': 100 * loading / (loading + step),
        'workers that keep up': math.ceil(loading / step),
    }


def pipeline_figures(dataset: Dataset, images: int) -> dict[str, float]:
    """Milliseconds per image of each transform, and of reading the annotations."""
    clock = PhaseClock(torch.device('cpu'))
    for transform in _leaves(dataset.pipeline.transforms):
        clock.watch(transform, 'transform', type(transform).__name__)
    clock.watch(dataset, 'get_data_info', 'annotations')
    count = min(images, len(dataset))
    for index in range(count):
        with clock.phase('other'):
            dataset.prepare_data(index)
    return {name: 1000 * seconds / count for name, seconds in clock.seconds.most_common()}


def _leaves(transforms: list) -> Iterator[object]:
    """Transforms that hold no others."""
    for transform in transforms:
        if hasattr(transform, 'transforms'):
            yield from _leaves(transform.transforms)
        else:
            yield transform
