"""The sections of the benchmark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from mmengine.config import Config

from .contenders import DINO_R1, MAX_NAMES, MMDET, NAMES, Contender, build_contender, fit_classes
from .loading import loading_figures
from .measure import (
    bank_figures,
    inference_figures,
    process_memory,
    step_memory,
    training_figures,
)
from .workload import Workload

# loading comes first: its data may be missing
SECTIONS = ('loading', 'memory', 'training', 'inference', 'bank')
WITHOUT_DATA = SECTIONS[1:]
CLASS_COUNTS = (80, 1203)  # of COCO and LVIS


@dataclass
class Suite:
    """What is measured, and on what.

    ``cfg`` is a whole config of one of our models and stays as it is; ``dtype`` is that of
    autocast, float32 for none; ``recompute`` keeps the config's activation checkpointing; medians
    are of so many ``rounds``. ``left_out`` gets the sections that the GPU's memory is too small
    for. ValueError: the model is none of ours, or mmdet's has no place for the class names.
    """

    cfg: Config
    workload: Workload
    device: torch.device
    dtype: torch.dtype = torch.float32
    models: Sequence[str] = NAMES
    rounds: int = 3
    recompute: bool = False
    sections: Sequence[str] = WITHOUT_DATA
    left_out: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.cfg.get('model', {}).get('type') != 'DINOR1':
            raise ValueError(f'{self.cfg.filename} has no model of type DINOR1')
        classes, trained = self.workload.classes, {'training', 'memory'} & set(self.sections)
        if MMDET in self.models and trained and classes > MAX_NAMES:
            raise ValueError(
                f"--classes {classes}: a caption of mmdet's Grounding DINO holds {MAX_NAMES} "
                'names at most; take fewer, or --models vis_gdino dino_r1'
            )
        self.cfg = fit_classes(self.cfg, classes)

    def run(self) -> dict:
        """The figures of each section; one that the memory is too small for costs no other."""
        results = {}
        for name in [section for section in SECTIONS if section in self.sections]:
            print(f'benchmark: {name} …', file=sys.stderr, flush=True)
            try:
                results[name] = getattr(self, name)()
            except torch.cuda.OutOfMemoryError:
                told = f'benchmark: {name}: the GPU has too little memory'
                print(told, file=sys.stderr, flush=True)
                self.left_out.append(name)
        return {name: figures for name, figures in results.items() if figures}

    @cached_property
    def contenders(self) -> dict[str, Contender]:
        """The models, by name."""
        return {name: self.build(name) for name in self.models}

    def build(self, name: str) -> Contender:
        """One of the models, with the same random weights each time."""
        torch.manual_seed(0)
        return build_contender(name, self.cfg, self.device, self.dtype, self.recompute)

    def loading(self) -> dict:
        """The config's training data, compared with steps of DINO-R1 where it trains as well."""
        contender = self.contenders.get(DINO_R1) if 'training' in self.sections else None
        return loading_figures(self.cfg, contender, self.rounds, images=50)

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
        return inference_figures(contenders, self.workload, CLASS_COUNTS, self.rounds)

    def bank(self) -> dict:
        """Encoding of reference images; mmdet has none."""
        ours = [contender for name, contender in self.contenders.items() if name != MMDET]
        return bank_figures(ours, self.workload, self.rounds) if ours else {}


def open_device(name: str | None) -> torch.device:
    """A device by name, None being a GPU where there is one; ValueError: it is not there."""
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
