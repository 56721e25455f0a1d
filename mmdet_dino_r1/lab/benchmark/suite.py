"""The sections of the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from ...config.tested_sets import innermost_dataset
from .contenders import (
    DINO_R1,
    MAX_TOKENS,
    MMDET,
    NAMES,
    Contender,
    build_contender,
    check_size,
    fit_classes,
    tokens_of,
)
from .loading import loading_figures
from .measure import (
    STEP,
    bank_figures,
    inference_figures,
    process_memory,
    step_memory,
    training_figures,
)
from .scaling import exponents, vary
from .workload import Workload

SECTIONS = ('memory', 'training', 'inference', 'bank')


@dataclass
class Suite:
    """What is measured, and on what.

    Args:
        cfg: a whole config of one of our models; left as it is.
        workload: the size of a step.
        device: where.
        dtype: of autocast; float32: none.
        models: of ``NAMES``.
        rounds: medians are of so many.
        recompute: with the config's activation checkpointing, else without any.
        class_counts: of inference.

    Attributes:
        left_out: what the GPU's memory was too small for.

    Raises:
        ValueError: the model is none of ours, or the images are too small for its queries.
    """

    cfg: Config
    workload: Workload
    device: torch.device
    dtype: torch.dtype = torch.float32
    models: Sequence[str] = NAMES
    rounds: int = 3
    recompute: bool = False
    class_counts: Sequence[int] = (80, 1203)
    left_out: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.cfg.get('model', {}).get('type') != 'DINOR1':
            raise ValueError(f'{self.cfg.filename} has no model of type DINOR1')
        self.cfg = fit_classes(self.cfg, self.workload.classes)

    def _check(self, sections: Sequence[str], loader: bool) -> None:
        if sections:
            check_size(self.cfg, self.workload.height, self.workload.width)
        trained = {'training', 'memory'} & set(sections)
        if MMDET in self.models and trained and tokens_of(self.workload.classes) > MAX_TOKENS:
            most = max(n for n in range(1, MAX_TOKENS) if tokens_of(n) <= MAX_TOKENS)
            raise ValueError(
                f"--classes {self.workload.classes}: a caption of mmdet's Grounding DINO holds "
                f'{most} names at most; take fewer, or --models vis_gdino dino_r1'
            )
        if loader:
            dataset = innermost_dataset(self.cfg.train_dataloader.dataset)
            file = Path(dataset.get('data_root') or '', dataset.get('ann_file') or '')
            if 'ann_file' in dataset and not file.is_file():
                raise FileNotFoundError(
                    f'--loader needs the training set of {self.cfg.filename}; there is no {file}'
                )

    def run(
        self, sections: Sequence[str], loader: bool, factors: Mapping[str, Sequence[float]]
    ) -> dict:
        """Measure; what the memory is too small for costs nothing else.

        Args:
            sections: of ``SECTIONS``.
            loader: the config's data as well.
            factors: of the scaling, with their points.

        Returns:
            By section, its figures.

        Raises:
            FileNotFoundError: there are no data.
            ValueError: images or captions are too small.
        """
        self._check(sections, loader)
        jobs = {name: getattr(self, name) for name in sections}
        if loader:
            jobs['loading'] = partial(self.loading, trained='training' in sections)
        for factor, values in factors.items():
            points = {value: vary(factor, value, self.cfg, self.workload) for value in values}
            jobs[f'scaling of {factor}'] = partial(self.scaling, factor, points)
        results = {}
        for name, job in jobs.items():
            print(f'benchmark: {name} …', file=sys.stderr, flush=True)
            try:
                results[name] = job()
            except torch.cuda.OutOfMemoryError:
                told = f'benchmark: {name}: the GPU has too little memory'
                print(told, file=sys.stderr, flush=True)
                self.left_out.append(name)
        return {name: figures for name, figures in results.items() if figures}

    @cached_property
    def contenders(self) -> dict[str, Contender]:
        """The models, by name."""
        return {name: self.build(name, self.cfg) for name in self.models}

    def build(self, name: str, cfg: ConfigDict) -> Contender:
        """One of the models, with the same random weights each time.

        Args:
            name: one of ``NAMES``.
            cfg: whole config.
        """
        torch.manual_seed(0)
        return build_contender(name, cfg, self.device, self.dtype, self.recompute)

    def memory(self) -> dict:
        """Peak memory of training."""
        if self.device.type == 'cuda':
            return {n: step_memory(c, self.workload) for n, c in self.contenders.items()}
        asked = (self.cfg, self.workload, self.dtype, self.recompute)
        return {name: process_memory(name, *asked) for name in self.models}

    def training(self) -> dict:
        """Steps and their phases."""
        return training_figures(list(self.contenders.values()), self.workload, self.rounds)

    def inference(self) -> dict:
        """Single images."""
        contenders = list(self.contenders.values())
        return inference_figures(contenders, self.workload, self.class_counts, self.rounds)

    def bank(self) -> dict | None:
        """Encoding of reference images, by one of ours: it is the same network; mmdet has none."""
        ours = [contender for name, contender in self.contenders.items() if name != MMDET]
        return bank_figures(ours[-1], self.workload, self.rounds) if ours else None

    def loading(self, trained: bool, images: int = 50) -> dict:
        """The config's data.

        Args:
            trained: compare with steps of DINO-R1.
            images: so many are prepared.
        """
        contender = self.contenders.get(DINO_R1) if trained else None
        return loading_figures(self.cfg, contender, self.rounds, images)

    def scaling(self, factor: str, points: Mapping[float, tuple[ConfigDict, Workload]]) -> list:
        """Rows: a step of DINO-R1 at each point, and how it has grown since the one before.

        Args:
            factor: its name.
            points: config and workload of each value.
        """
        vars(self).pop('contenders', None)  # leave it their memory
        seconds = []
        for cfg, workload in points.values():
            contender = self.build(DINO_R1, cfg)
            seconds.append(training_figures([contender], workload, self.rounds)[DINO_R1][STEP])
        grown = [None, *exponents(list(points), seconds)]
        rows = zip(points, seconds, grown, strict=True)
        return [{factor: at, STEP: step, 'exponent': exponent} for at, step, exponent in rows]


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
