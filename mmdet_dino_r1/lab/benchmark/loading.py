"""Whether the data loader keeps up with the training, and where its time goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from statistics import median

import torch
from mmdet.registry import DATASETS
from mmengine.config import ConfigDict
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from ...config.loading import image_pipeline
from ...config.tested_sets import exemplar_source
from .contenders import Contender
from .measure import in_turn, time_step
from .phases import PhaseClock

# the training may wait for data for so much of its time
BEARABLE = 0.1


def loader_figures(
    cfg: ConfigDict, contender: Contender | None, rounds: int, batches: int = 20, images: int = 50
) -> dict:
    """Speed of a config's training loader, of the parts of its pipeline and of a bank's images.

    Args:
        cfg: a whole config.
        contender: takes steps on the loader's own batches, to compare with; None: none does.
        rounds: how often the loaders, in turn, are timed.
        batches: how many are timed each time.
        images: how many are prepared to time the pipeline.

    Returns:
        ``batch_size``; ``loaders``: by number of workers the seconds per batch, images per second
        and, with a contender, ``waiting``, the share of the training's time that is spent waiting
        for data, and ``keeps_up``; ``step``: seconds, or None; ``pipeline`` and
        ``exemplar_pipeline``: see :func:`pipeline_figures`.
    """
    configured = cfg.train_dataloader.num_workers
    loaders = {workers: _build_loader(cfg, workers) for workers in sorted({configured, 0})}
    timed = in_turn(
        {workers: _loading_job(loader, batches) for workers, loader in loaders.items()}, rounds
    )
    batch_size = cfg.train_dataloader.batch_size
    result = dict(batch_size=batch_size, configured=configured, step=None, loaders={})
    if contender is not None:
        batch = next(iter(loaders[0]))
        contender.clock.restart(on=False)
        result['step'] = median([time_step(contender, batch) for _ in range(rounds + 1)][1:])
    for workers, figures in timed.items():
        seconds = figures['seconds']
        entry = dict(seconds_per_batch=seconds, images_per_second=batch_size / seconds)
        if result['step'] is not None:
            entry['waiting'] = waiting_share(seconds, result['step'], workers)
            entry['keeps_up'] = entry['waiting'] <= BEARABLE
        result['loaders'][str(workers)] = entry
    result['pipeline'] = pipeline_figures(_innermost(loaders[0].dataset), images)
    result['exemplar_pipeline'] = pipeline_figures(_exemplars(cfg), images)
    return result


def waiting_share(loading: float, step: float, workers: int) -> float:
    """Share of the training's time in which it waits for data.

    Args:
        loading: seconds per batch.
        step: seconds of a training step.
        workers: that load beside the training; without, loading and training take turns.
    """
    if workers == 0:
        return loading / (loading + step)
    return max(0.0, loading - step) / max(loading, step)


def pipeline_figures(dataset: Dataset, images: int = 50) -> dict[str, float]:
    """Seconds per image of each transform, and of reading the annotations ('annotations').

    Args:
        dataset: a dataset of mmengine with a pipeline; used up, since its transforms are timed
            from now on.
        images: so many of its first ones are prepared.
    """
    clock = PhaseClock(torch.device('cpu'))
    for transform in _leaves(dataset.pipeline.transforms):
        clock.watch(transform, 'transform', type(transform).__name__)
    clock.watch(dataset, 'get_data_info', 'annotations')
    count = min(images, len(dataset))
    for index in range(count):
        with clock.phase('other'):
            dataset.prepare_data(index)
    return {name: seconds / count for name, seconds in clock.seconds.most_common()}


def summed_up(pipeline: dict[str, float]) -> dict[str, float]:
    """Seconds per image of decoding, resizing and all else.

    Args:
        pipeline: from :func:`pipeline_figures`.
    """
    kinds = dict.fromkeys(('decode', 'resize', 'other'), 0.0)
    for name, seconds in pipeline.items():
        decodes = name.startswith('Load') and 'Image' in name
        kinds['decode' if decodes else 'resize' if 'Resize' in name else 'other'] += seconds
    return kinds


def _build_loader(cfg: ConfigDict, workers: int) -> DataLoader:
    loader = copy.deepcopy(cfg.train_dataloader)
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    return Runner.build_dataloader(loader, seed=0)


def _loading_job(loader: DataLoader, batches: int) -> Callable[[], dict]:
    """Times ``batches`` in a row, after as many as the workers prepare in advance."""
    ahead = loader.num_workers * (loader.prefetch_factor or 0) + 1
    batches = max(1, min(batches, len(loader) - ahead))

    def run() -> dict:
        stream = _endless(loader)
        for _ in range(min(ahead, len(loader))):
            next(stream)
        start = time.perf_counter()
        for _ in range(batches):
            next(stream)
        return dict(seconds=(time.perf_counter() - start) / batches)

    return run


def _endless(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from loader


def _innermost(dataset: Dataset) -> Dataset:
    while not hasattr(dataset, 'pipeline'):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    return dataset


def _exemplars(cfg: ConfigDict) -> Dataset:
    """The reference images of the config's prompt bank."""
    hook = (cfg.get('default_hooks') or {}).get('prompt_bank') or {}
    bank = hook.get('bank')
    bank = bank if isinstance(bank, dict) else {}
    split = exemplar_source(bank, cfg)
    split.pop('match', None)
    chosen = dict(shots=bank.get('shots', 16), seed=bank.get('seed', 0), skip_missing=True)
    pipeline = image_pipeline(cfg)
    return DATASETS.build(dict(type='ExemplarDataset', pipeline=pipeline, **chosen, **split))


def _leaves(transforms: list) -> Iterator[object]:
    """Transforms that hold no others."""
    for transform in transforms:
        if hasattr(transform, 'transforms'):
            yield from _leaves(transform.transforms)
        else:
            yield transform
