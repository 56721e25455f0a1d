"""Timings taken in turn in one process, and peak memory, each model in a process of its own."""

from __future__ import annotations

import copy
import multiprocessing
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from .contenders import DINO_R1, MMDET, PHASES, Contender, build_contender, count_parameters
from .workload import Workload


def in_turn(jobs: dict[str, Callable[[], dict]], rounds: int) -> dict[str, dict[str, float]]:
    """Median figures of several jobs which take turns, so that all meet the same weather.

    Args:
        jobs: by name; each call returns figures by name, the same each time.
        rounds: how often each is called, after one call that does not count.

    Returns:
        By job, the median of each figure.
    """
    figures: dict[str, list[dict]] = {name: [] for name in jobs}
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


def training_figures(
    contenders: Sequence[Contender], workload: Workload, rounds: int
) -> dict[str, dict]:
    """Seconds of a training step and of its phases.

    Args:
        contenders: what is compared.
        workload: the size of the step.
        rounds: how often each is timed.

    Returns:
        By name: ``step`` (measured without the clock's waits on CUDA), ``images_per_second``,
        ``phases`` by name, ``parameters``.
    """
    batch = workload.training_batch()

    def job(contender: Contender) -> Callable[[], dict]:
        def run() -> dict:
            clock = contender.clock
            if contender.device.type != 'cuda':
                clock.restart()
                return dict(step=time_step(contender, batch)) | clock.seconds
            clock.restart(on=False)
            step = time_step(contender, batch)
            clock.restart()
            time_step(contender, batch)
            return dict(step=step) | clock.seconds

        return run

    jobs = {contender.name: job(contender) for contender in contenders}
    results = {}
    for contender, figures in zip(contenders, in_turn(jobs, rounds).values(), strict=True):
        step = figures.pop('step')
        results[contender.name] = dict(
            step=step,
            images_per_second=workload.batch_size / step,
            phases={phase: figures[phase] for phase in PHASES if phase in figures},
            parameters=count_parameters(contender.model),
            note=contender.note,
        )
    return results


def time_step(contender: Contender, batch: dict) -> float:
    """Seconds of a training step.

    Args:
        contender: takes the step.
        batch: left as it is.
    """
    batch = copy.deepcopy(batch)  # it is written into
    start = contender.clock.now()
    contender.step(batch)
    return contender.clock.now() - start


def inference_figures(
    contenders: Sequence[Contender], workload: Workload, counts: Sequence[int], rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds for one image, by number of classes.

    VIS-GDINO and DINO-R1 are one network here; only the latter is timed where both are given.

    Args:
        contenders: what is compared.
        workload: its image size counts.
        counts: numbers of classes.
        rounds: how often each is timed.

    Returns:
        By name, by number of classes as a string (JSON knows no other keys).
    """
    names = {contender.name for contender in contenders}
    timed = [c for c in contenders if c.name in (DINO_R1, MMDET) or DINO_R1 not in names]
    results: dict[str, dict] = {contender.name: {} for contender in timed}
    for count in counts:
        batch = replace(workload, classes=count).test_batch()
        for contender in timed:
            contender.show_classes(count)
        jobs = {c.name: partial(_time_detection, c, batch) for c in timed}
        figures = in_turn(jobs, rounds)
        for name, measured in figures.items():
            results[name][str(count)] = measured['seconds']
    return results


def _time_detection(contender: Contender, batch: dict) -> dict[str, float]:
    batch = copy.deepcopy(batch)  # it is written into
    start = contender.clock.now()
    contender.detect(batch)
    return dict(seconds=contender.clock.now() - start)


def bank_figures(contender: Contender, workload: Workload, rounds: int) -> dict[str, float]:
    """Speed of encoding exemplars for a prompt bank: every box of a batch is one.

    Args:
        contender: one of ours.
        workload: size and number of images, and their boxes.
        rounds: how often it is timed.
    """
    batch = workload.training_batch()
    for sample in batch['data_samples']:
        sample.prompt_instances = sample.gt_instances
    contender.model.eval()

    def run() -> dict:
        start = contender.clock.now()
        with contender.autocast():
            contender.model.encode_reference_images(dict(batch))
        return dict(seconds=contender.clock.now() - start)

    seconds = in_turn(dict(bank=run), rounds)['bank']['seconds']
    return dict(
        images_per_second=workload.batch_size / seconds,
        exemplars_per_second=workload.batch_size * workload.boxes / seconds,
    )


def peak_memory(
    name: str,
    cfg: ConfigDict,
    workload: Workload,
    device: torch.device,
    dtype: torch.dtype,
    recompute: bool,
) -> dict[str, float]:
    """Memory that training takes at most, in a fresh process.

    On CUDA what the allocator handed out; on the CPU the growth of the process, which varies by
    some per cent from run to run.

    Args: as for :func:`build_contender`.

    Returns:
        In GiB, ``peak``: all of it; ``kept``: weights, buffers, optimiser and reference model.
    """
    # a child process, so that nothing that this one ever held counts
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        arguments = (name, cfg.to_dict(), workload, str(device), dtype, recompute)
        return pool.apply(_peak_memory, (*arguments, torch.get_num_threads()))


def _peak_memory(name, cfg, workload, device, dtype, recompute, threads) -> dict[str, float]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = torch.device(device)
    before = _largest_rss()
    with DefaultScope.overwrite_default_scope('mmdet'):
        contender = build_contender(name, ConfigDict(cfg), device, dtype, recompute)
        for seed in range(2):  # the optimiser's state is made in the first step
            contender.step(workload.training_batch(seed))
    if device.type == 'cuda':
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = _largest_rss() - before
    return dict(peak=peak / 2**30, kept=kept_bytes(contender) / 2**30)


def step_memory(contender: Contender, workload: Workload) -> dict[str, float]:
    """Memory that training takes at most, whatever else this process holds; CUDA only.

    Args:
        contender: has trained before, so that its optimiser has its state.
        workload: the size of a step.

    Returns:
        As :func:`peak_memory`.
    """
    device = contender.device
    torch.cuda.reset_peak_memory_stats(device)
    before, kept = torch.cuda.memory_allocated(device), kept_bytes(contender)
    contender.step(workload.training_batch())
    peak = torch.cuda.max_memory_allocated(device) - before + kept
    return dict(peak=peak / 2**30, kept=kept / 2**30)


def kept_bytes(contender: Contender) -> int:
    """Bytes of weights, buffers, the optimiser's state and the reference model's snapshot."""
    tensors = [*contender.model.parameters(), *contender.model.buffers()]
    for state in contender.optim_wrapper.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    if contender.name == DINO_R1:
        tensors += contender.model.reference_model.state_dict().values()
    return sum(tensor.nbytes for tensor in tensors)


def _largest_rss() -> int:
    """Bytes of memory that this process has had at most.

    Linux's ``ru_maxrss`` starts at what the parent held, so it is asked only elsewhere.
    """
    status = Path('/proc/self/status')
    if status.is_file() and (found := re.search(r'VmHWM:\s*(\d+) kB', status.read_text())):
        return int(found[1]) * 1024
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
