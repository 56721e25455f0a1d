"""Timings taken in turn in one process, and peak memory.

Figures are dicts, quantity with its unit -> value, as the report prints them.
"""

from __future__ import annotations

import copy
import multiprocessing
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from .contenders import (
    DINO_R1,
    PHASES,
    Contender,
    apart_in_tests,
    build_contender,
    count_parameters,
)
from .workload import Workload

STEP, PEAK = 'step, s', 'peak of training, GiB'
KEPT = 'of that kept, GiB'  # weights, buffers, optimiser and reference model


def in_turn(
    jobs: dict[Hashable, Callable[[], dict]], rounds: int
) -> dict[Hashable, dict[str, float]]:
    """Median figures of jobs that take turns, ``rounds`` times after one that does not count."""
    figures: dict[Hashable, list[dict]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        names = list(jobs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            measured = jobs[name]()
            if turn > 0:
                figures[name].append(measured)
    return {
        name: {key: median(each[key] for each in measured) for key in measured[0]}
        for name, measured in figures.items()
    }


def seconds_of(contender: Contender, work: Callable[[dict], object], batch: dict) -> float:
    """Seconds that something takes on a copy of a batch, by the contender's clock."""
    batch = copy.deepcopy(batch)
    start = contender.clock.now()
    work(batch)
    return contender.clock.now() - start


def training_figures(
    contenders: Sequence[Contender], workload: Workload, rounds: int
) -> dict[str, dict]:
    """By name the seconds of a step and of its phases (None: there is no such phase), and more."""
    batch = workload.training_batch()

    def step(contender: Contender) -> dict[str, float]:
        clock = contender.clock
        clock.restart(on=contender.device.type != 'cuda')
        seconds = seconds_of(contender, contender.step, batch)
        if not clock.on:  # its waits slow a step down, so the phases are those of another one
            clock.restart()
            contender.step(copy.deepcopy(batch))
        return {STEP: seconds} | {f'… {name}, s': took for name, took in clock.seconds.items()}

    results = in_turn({c.name: partial(step, c) for c in contenders}, rounds)
    for contender in contenders:
        measured = results[contender.name]
        figures = {key: measured.get(key) for key in (STEP, *(f'… {name}, s' for name in PHASES))}
        results[contender.name] = figures
        figures['images/s'] = workload.batch_size / figures[STEP]
        figures['parameters, millions'] = count_parameters(contender.model) / 1e6
        if contender.note:
            figures['language model'] = contender.note
    return results


def inference_figures(
    contenders: Sequence[Contender], workload: Workload, counts: Sequence[int], rounds: int
) -> dict[str, dict[str, float]]:
    """By name the seconds for one image, '80 classes, s' and so on."""
    timed = apart_in_tests(contenders)

    def detect(contender: Contender, count: int) -> dict[str, float]:
        contender.show_classes(count)
        batch = replace(workload, classes=count).test_batch()
        return dict(seconds=seconds_of(contender, contender.detect, batch))

    jobs = {(c.name, count): partial(detect, c, count) for count in counts for c in timed}
    took = in_turn(jobs, rounds)
    return {
        c.name: {f'{count} classes, s': took[c.name, count]['seconds'] for count in counts}
        for c in timed
    }


def bank_figures(
    contenders: Sequence[Contender], workload: Workload, rounds: int
) -> dict[str, dict[str, float]]:
    """By name the speed of ours in encoding the boxes of a batch for a bank."""
    batch = workload.training_batch()
    for sample in batch['data_samples']:
        sample.prompt_instances = sample.gt_instances

    def encode(contender: Contender) -> dict[str, float]:
        model = contender.model.eval()
        with contender.autocast():
            seconds = seconds_of(contender, model.encode_reference_images, batch)
        per_second = workload.batch_size / seconds
        return {'images/s': per_second, 'boxes/s': workload.boxes * per_second}

    return in_turn({c.name: partial(encode, c) for c in apart_in_tests(contenders)}, rounds)


def step_memory(contender: Contender, workload: Workload) -> dict[str, float]:
    """Memory that training on CUDA takes at most, whatever else this process holds."""
    device = contender.device
    contender.step(workload.training_batch())  # the optimiser's state is made in the first step
    torch.cuda.reset_peak_memory_stats(device)
    before, kept = torch.cuda.memory_allocated(device), kept_bytes(contender)
    contender.step(workload.training_batch(seed=1))
    peak = torch.cuda.max_memory_allocated(device) - before + kept
    return {PEAK: peak / 2**30, KEPT: kept / 2**30}


def process_memory(
    name: str, cfg: ConfigDict, workload: Workload, dtype: torch.dtype, recompute: bool
) -> dict[str, float]:
    """Memory that training on the CPU takes at most: a fresh process's growth, to some per cent."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_growth, (name, cfg.to_dict(), workload, dtype, recompute))


def _growth(name, cfg, workload, dtype, recompute) -> dict[str, float]:
    torch.manual_seed(0)
    before = _largest_rss()
    with DefaultScope.overwrite_default_scope('mmdet'):
        contender = build_contender(name, ConfigDict(cfg), torch.device('cpu'), dtype, recompute)
        for seed in range(2):  # the optimiser's state is made in the first step
            contender.step(workload.training_batch(seed))
    peak = _largest_rss() - before
    return {PEAK: peak / 2**30, KEPT: kept_bytes(contender) / 2**30}


def kept_bytes(contender: Contender) -> int:
    """Bytes of weights, buffers, the optimiser's state and the reference model's snapshot."""
    tensors = [*contender.model.parameters(), *contender.model.buffers()]
    for state in contender.optim_wrapper.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    if contender.name == DINO_R1:
        tensors += contender.model.reference_model.state_dict().values()
    return sum(tensor.nbytes for tensor in tensors)


def _largest_rss() -> int:
    """Bytes that this process has had at most; Linux's ``ru_maxrss`` counts the parent's too."""
    status = Path('/proc/self/status')
    if status.is_file():
        return 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', status.read_text())[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
