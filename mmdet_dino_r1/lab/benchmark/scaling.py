"""How a training step of DINO-R1 grows with one size at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from mmengine.config import ConfigDict

from .contenders import DINO_R1, Contender, build_contender, count_tokens, fit_classes
from .measure import in_turn, inference_figures, peak_memory, time_step
from .workload import Workload

# Factor -> its default points. 'size' is the area of the image relative to the workload's.
FACTORS = {
    'queries': (225, 450, 900, 1800),
    'prompts': (1, 10, 80, 300, 1203),
    'size': (0.25, 0.5, 1, 2),
    'batch': (1, 2, 4, 8),
    'boxes': (10, 50, 100, 200, 400),
}
UNITS = {
    'queries': 'queries',
    'prompts': 'classes with a prompt',
    'size': 'image size, megapixels',
    'batch': 'images per batch',
    'boxes': 'boxes per image',
}
# what counts as faster than linear: noise alone makes 1.0 a little more
LINEAR = 1.1
_STRIDE = 32  # sides of images are multiples of it


@dataclass
class Point:
    """One size.

    Attributes:
        value: of the factor, as it is plotted.
        workload: of the step.
        cfg: whole config.
    """

    value: float
    workload: Workload
    cfg: ConfigDict


def make_points(
    factor: str, values: Sequence[float], cfg: ConfigDict, workload: Workload
) -> list[Point]:
    """The points of a factor, all else being equal.

    With 'prompts' as many boxes stand in every image as the most classes need, whatever their
    number, since a class without a box has no prompt in training.

    Args:
        factor: one of ``FACTORS``.
        values: ascending; areas relative to the workload's for 'size'.
        cfg: whole config of one of our models.
        workload: what is not varied.

    Raises:
        ValueError: an image is too small for the number of queries.
    """
    points = []
    for value in values:
        changed, shown, config = workload, value, cfg
        if factor == 'queries':
            config = copy.deepcopy(cfg)
            config.model.num_queries = int(value)
        elif factor == 'prompts':
            boxes = math.ceil(max(values) / workload.batch_size)
            changed = replace(workload, classes=int(value), boxes=boxes)
            config = fit_classes(cfg, int(max(values)))
        elif factor == 'size':
            height, width = (
                max(1, round(side * value**0.5 / _STRIDE)) * _STRIDE
                for side in (workload.height, workload.width)
            )
            changed, shown = replace(workload, height=height, width=width), height * width / 1e6
        elif factor == 'batch':
            changed = replace(workload, batch_size=int(value))
        elif factor == 'boxes':
            changed = replace(workload, boxes=int(value))
        check_size(config, changed)
        points.append(Point(shown, changed, config))
    return points


def check_size(cfg: ConfigDict, workload: Workload) -> None:
    """Make sure that an image has tokens for all queries.

    Args:
        cfg: whole config of one of our models.
        workload: tells the size of the images.

    Raises:
        ValueError: it has not.
    """
    tokens = count_tokens(cfg.model, workload.height, workload.width)
    if tokens < cfg.model.num_queries:
        raise ValueError(
            f'An image of {workload.height}x{workload.width} has {tokens} tokens, too few for '
            f'{cfg.model.num_queries} queries. Take larger images, or fewer queries: '
            f'--cfg-options model.num_queries={tokens // 2}'
        )


def scale(
    factor: str,
    values: Sequence[float],
    cfg: ConfigDict,
    workload: Workload,
    device: torch.device,
    dtype: torch.dtype,
    recompute: bool,
    rounds: int,
    memory: bool,
) -> dict:
    """Measure the points of one factor, in turn.

    Args:
        factor: one of ``FACTORS``.
        values: ascending, see :func:`make_points`.
        cfg: whole config of one of our models.
        workload: what is not varied.
        device: where to.
        dtype: of autocast.
        recompute: with the config's activation checkpointing.
        rounds: how often each point is timed.
        memory: on the CPU, measure memory, too, in a process for each point; on CUDA it is
            always measured.

    Returns:
        ``unit``, ``values``, ``seconds`` of a step, ``memory`` (GiB that a step takes beside
        what is kept, see :func:`peak_memory`, or None), with 'boxes' also
        ``denoising_queries``, with 'prompts' also ``inference_seconds`` of one image.
    """
    points = make_points(factor, values, cfg, workload)
    build = partial(build_contender, DINO_R1, device=device, dtype=dtype, recompute=recompute)
    shared = None if factor == 'queries' else build(cfg=points[0].cfg)
    contenders = [shared or build(cfg=point.cfg) for point in points]
    jobs = {
        str(index): _step_job(contender, point.workload)
        for index, (contender, point) in enumerate(zip(contenders, points, strict=True))
    }
    figures = list(in_turn(jobs, rounds).values())
    result = dict(
        unit=UNITS[factor],
        values=[point.value for point in points],
        seconds=[figure['seconds'] for figure in figures],
        memory=None,
    )
    if device.type == 'cuda':
        result['memory'] = [figure['memory'] for figure in figures]
    elif memory:
        peaks = [
            peak_memory(DINO_R1, point.cfg, point.workload, device, dtype, recompute)
            for point in points
        ]
        result['memory'] = [peak['peak'] - peak['kept'] for peak in peaks]
    if factor == 'boxes':
        result['denoising_queries'] = [
            denoising_queries(shared, point.workload) for point in points
        ]
    if factor == 'prompts':
        counts = [int(value) for value in values]
        timed = inference_figures([shared], workload, counts, rounds)[DINO_R1]
        result['inference_seconds'] = [timed[str(count)] for count in counts]
    return result


def _step_job(contender: Contender, workload: Workload) -> Callable[[], dict]:
    batch = workload.training_batch()

    def run() -> dict:
        contender.clock.restart(on=False)
        if contender.device.type != 'cuda':
            return dict(seconds=time_step(contender, batch))
        torch.cuda.reset_peak_memory_stats(contender.device)
        before = torch.cuda.memory_allocated(contender.device)
        seconds = time_step(contender, batch)
        peak = torch.cuda.max_memory_allocated(contender.device)
        return dict(seconds=seconds, memory=(peak - before) / 2**30)

    return run


def denoising_queries(contender: Contender, workload: Workload) -> int:
    """How many denoising queries a step of so many boxes per image has.

    Args:
        contender: one of ours.
        workload: tells the number of boxes.
    """
    model = contender.model.train()
    samples = model.data_preprocessor(workload.training_batch(), True)['data_samples']
    return int(model.dn_query_generator(samples)[-1]['num_denoising_queries'])


def exponents(values: Sequence[float], figures: Sequence[float]) -> list[float]:
    """Growth between successive points: 0 is none, 1 linear, 2 quadratic.

    Args:
        values: of the factor, ascending.
        figures: seconds or GiB, positive.
    """
    pairs = zip(values, figures, strict=True)
    logs = [(math.log(value), math.log(figure)) for value, figure in pairs]
    return [
        (after[1] - before[1]) / (after[0] - before[0])
        for before, after in zip(logs, logs[1:], strict=False)
    ]


def last_exponent(values: Sequence[float], figures: Sequence[float]) -> float:
    """Growth over the last doubling.

    From the last point at no more than half of the highest value, or the first, where there is
    none, to the highest.

    Args:
        values: of the factor, ascending.
        figures: seconds or GiB, positive.
    """
    below = [index for index, value in enumerate(values) if value <= values[-1] / 2]
    first = below[-1] if below else 0
    return exponents([values[first], values[-1]], [figures[first], figures[-1]])[0]


def faster_than_linear(scaling: dict[str, dict]) -> list[str]:
    """What grows faster than linearly over its last doubling, such as 'step time with queries'.

    Args:
        scaling: results of :func:`scale` by factor.
    """
    kinds = dict(seconds='step time', memory='memory', inference_seconds='inference time')
    found = []
    for factor, result in scaling.items():
        for key, kind in kinds.items():
            figures = result.get(key)
            # a growth below what can be measured has no logarithm
            if figures and len(figures) > 1 and min(figures) > 0:
                grown = last_exponent(result['values'], figures)
                if grown > LINEAR:
                    found.append(f'{kind} with {factor} (exponent {grown:.2f})')
    return found
