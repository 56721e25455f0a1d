"""The sections of the benchmark, one after the other."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from ...config.loading import load_config
from ...config.tested_sets import innermost_dataset
from . import scaling
from .contenders import (
    DINO_R1,
    MAX_TOKENS,
    MMDET,
    Contender,
    build_contender,
    fit_classes,
    tokens_of,
)
from .imports import import_figures
from .loading import loader_figures
from .measure import bank_figures, inference_figures, peak_memory, training_figures
from .workload import Workload

SECTIONS = ('memory', 'training', 'inference', 'bank', 'import')
INFERENCE_CLASSES = (80, 1203)


class Suite:
    """What the command line asks for.

    Args:
        options: from the tool's ``parse_args``.

    Attributes:
        cfg: the config.
        workload: what is timed.
        device: where.
        dtype: of autocast.
        left_out: sections, and factors of the scaling, for which the GPU's memory was too small.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: something does not fit together, such as small images and many queries.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = open_device(options.device)
        self.dtype = getattr(torch, options.dtype)
        cfg = load_config(options.config, options.cfg_options)
        self.workload = Workload(*options.size, options.batch_size, options.classes, options.boxes)
        self.cfg = check_config(cfg, options, self.workload)
        self.left_out: list[str] = []

    @cached_property
    def contenders(self) -> dict[str, Contender]:
        """The models, by name."""
        return {name: self.build(name) for name in self.options.models}

    def build(self, name: str) -> Contender:
        """One of the models.

        Args:
            name: one of ``NAMES``.
        """
        torch.manual_seed(0)
        recompute = self.options.checkpointing
        return build_contender(name, self.cfg, self.device, self.dtype, recompute)

    def run(self) -> dict:
        """All that was asked for.

        Returns:
            By section, its figures.
        """
        jobs: dict[str, Callable[[], dict]] = {
            'memory': self.memory,
            'training': self.training,
            'inference': self.inference,
            'bank': self.bank,
            'import': lambda: import_figures(self.options.rounds),
        }
        jobs = {name: jobs[name] for name in self.options.sections}
        if self.options.loader:
            jobs['loader'] = self.loader
        results = {name: self._run(name, job) for name, job in jobs.items()}
        if self.options.scaling:
            vars(self).pop('contenders', None)  # leave it their memory
            results['scaling'] = self.scaling()
        return {name: figures for name, figures in results.items() if figures}

    def _run(self, name: str, job: Callable[[], dict]) -> dict | None:
        """What a job gives, or None where memory was too small; the others go on."""
        print(f'benchmark: {name} …', file=sys.stderr, flush=True)
        try:
            return job()
        except torch.cuda.OutOfMemoryError:
            print(f'benchmark: {name}: the GPU has too little memory', file=sys.stderr, flush=True)
            self.left_out.append(name)
            return None

    def memory(self) -> dict:
        """Peak memory of training, each model in a process of its own."""
        shared = (self.workload, self.device, self.dtype, self.options.checkpointing)
        return {name: peak_memory(name, self.cfg, *shared) for name in self.options.models}

    def training(self) -> dict:
        """Steps and their phases."""
        contenders = list(self.contenders.values())
        return training_figures(contenders, self.workload, self.options.rounds)

    def inference(self) -> dict:
        """Single images."""
        contenders = list(self.contenders.values())
        return inference_figures(contenders, self.workload, INFERENCE_CLASSES, self.options.rounds)

    def bank(self) -> dict:
        """Encoding of reference images, by one of ours; by all of ours it is the same network."""
        ours = [name for name in self.contenders if name != MMDET]
        return bank_figures(self.contenders[ours[-1]], self.workload, self.options.rounds)

    def loader(self) -> dict:
        """The config's data; beside steps of DINO-R1 where it trained in this run."""
        trained = 'training' in self.options.sections and DINO_R1 in self.contenders
        contender = self.contenders[DINO_R1] if trained else None
        return loader_figures(self.cfg, contender, self.options.rounds)

    def scaling(self) -> dict:
        """Growth with each factor."""
        options = self.options
        shared = (self.cfg, self.workload, self.device, self.dtype)
        asked = (options.checkpointing, options.rounds, options.memory)
        results = {}
        for factor, values in options.scaling.items():
            gc.collect()  # the models of the factor before
            job = partial(scaling.scale, factor, values, *shared, *asked)
            results[factor] = self._run(f'scaling of {factor}', job)
        return {factor: figures for factor, figures in results.items() if figures}


def open_device(name: str | None) -> torch.device:
    """A device that is there.

    Args:
        name: 'cpu', 'cuda', 'cuda:1'; None: a GPU where there is one.

    Raises:
        ValueError: it is not there.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        raise ValueError(f'--device {name} is none; take cpu, cuda or cuda:1') from error
    if device.type not in ('cpu', 'cuda'):
        raise ValueError(f'--device {name}: only cpu and cuda can be timed')
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f'--device {name} is not there: torch sees {count} CUDA devices')
    return device


def check_config(cfg: Config, options: argparse.Namespace, workload: Workload) -> ConfigDict:
    """The config, fit for the benchmark.

    Args:
        cfg: as loaded.
        options: from the tool's ``parse_args``.
        workload: what is to be timed.

    Raises:
        FileNotFoundError: data are wanted and not there.
        ValueError: it cannot be timed as the options ask for.
    """
    if cfg.get('model', {}).get('type') != 'DINOR1':
        raise ValueError(f'{options.config} has no model of type DINOR1')
    if options.sections or options.scaling:
        scaling.check_size(cfg, workload)
    trained = {'training', 'memory'} & set(options.sections)
    if MMDET in options.models and trained and tokens_of(workload.classes) > MAX_TOKENS:
        most = max(n for n in range(1, MAX_TOKENS) if tokens_of(n) <= MAX_TOKENS)
        raise ValueError(
            f"--classes {workload.classes}: a caption of mmdet's Grounding DINO holds {most} names "
            'at most; take fewer, or --models vis_gdino dino_r1'
        )
    if options.loader:
        dataset = innermost_dataset(cfg.train_dataloader.dataset)
        file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
        if 'ann_file' in dataset and not file.is_file():
            raise FileNotFoundError(
                f'--loader needs the training set of {options.config}; there is no {file}'
            )
    if 'bank' in options.sections and options.models == [MMDET]:
        options.sections.remove('bank')  # mmdet has none
    for factor, values in options.scaling.items():
        scaling.make_points(factor, values, cfg, workload)  # which checks the sizes
    return fit_classes(cfg, workload.classes)
