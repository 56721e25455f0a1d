"""A real training through the Runner with AMP, killed and resumed once, tested, and repeated.

The ``study`` tool does the work, in processes of its own: DINO-R1 and VIS-GDINO with the same seeds
on a shapes set drawn for it. What is read here are its files: ``CELL/seed_N/result.json``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from ...config.loading import load_config
from ..training.log import read_run
from .gpu_agreement import amp_wrapper_cfg
from .stage_runner import Record

CELLS = {'dino_r1': 'DINO-R1', 'vis_gdino': 'VIS-GDINO'}  # the first one's first run is killed
SPLITS = ('base', 'novel')
# What a run costs beside its steps: starting twice, drawing, checking, two tests, in seconds.
OVERHEAD = 150.0
CROWDED = 1.5  # how much slower a step may be while other runs use the card
UNKNOWN_STEP = 0.6  # seconds, where no step was timed
_TICK = 0.1


def _shapes(image_size: int, base: int, novel: int, train: int, val: int) -> dict[str, int]:
    return dict(
        image_size=image_size,
        num_base_classes=base,
        num_novel_classes=novel,
        train_images=train,
        val_images=val,
        val_novel_images=val,
        prompts_novel_images=8 * novel,
    )


@dataclass(frozen=True)
class TrainingSizes:
    """How large the training is.

    Attributes:
        model: a shipped config whose model is trained, DINO-R1's; its name with ``vis_gdino`` is
            the other's. None: the small one of the shapes set.
        shapes: of the data, as ``ShapesConfig`` has them.
        batch_size: of a step.
        steps: at least and at most; between them the time decides.
        seeds: at most.
        jobs: runs at the same time, at most one for four cores.
    """

    model: str | None
    shapes: Mapping[str, int]
    batch_size: int
    steps: tuple[int, int]
    seeds: int
    jobs: int


FULL = TrainingSizes(
    'dino_r1_swin_t_coco.py', _shapes(256, 12, 6, 1200, 96), 16, (30, 600), seeds=6, jobs=4
)
TINY = TrainingSizes(None, _shapes(64, 4, 2, 12, 4), 2, (6, 6), seeds=1, jobs=1)


def train_pairs(
    record: Record, sizes: TrainingSizes, folder: Path, seconds: float, step: float | None
) -> None:
    """Train and test until the time is gone.

    Args:
        record: gets the settings, what killing and resuming gave, runs, and pairs of them.
        sizes: of it all.
        folder: empty or new, for data and checkpoints.
        seconds: that it may take.
        step: seconds of a step of this size by itself, where it was measured.
    """
    until = time.monotonic() + seconds - 8  # to write down what there is
    jobs = max(1, min(sizes.jobs, (os.cpu_count() or 1) // 4))
    fitting = int(0.9 * (seconds - OVERHEAD) / ((step or UNKNOWN_STEP) * (CROWDED ** (jobs > 1))))
    steps = max(sizes.steps[0], min(sizes.steps[1], fitting))
    record.add('settings', dict(asdict(sizes), steps=steps, jobs=jobs, dtype='bfloat16'))
    grid, out = write_grid(sizes, folder, steps), folder / 'study'
    command = [sys.executable, '-m', 'mmdet_dino_r1.tools.study', grid, '--out', str(out)]
    command += ['--jobs', str(jobs)]
    study, first = _start(command), out / next(iter(CELLS)) / 'seed_0'
    killed_at = None
    while study.poll() is None and time.monotonic() < until:
        time.sleep(_TICK)
        if killed_at is None and (killed_at := _last_checkpoint(first)) is not None:
            time.sleep(5 * (jobs > 1))  # the others are about to save theirs
            _kill(study)
            study = _start(command)
        if (runs := list(read_runs(out, sizes.seeds))) != record.figures.get('runs', []):
            record.add('runs', runs)
    status = study.poll()
    _kill(study)
    runs = list(read_runs(out, sizes.seeds))
    pairs, resumed_at = pairs_of(runs), first_step_of_the_last_start(first)
    told = {'killed after step': killed_at, 'first step logged after that': resumed_at}
    record.add('killed and resumed', told)
    record.add('runs', runs)
    record.add('differences, DINO-R1 less VIS-GDINO, at equal steps', pairs)
    resumed = None not in told.values() and resumed_at > killed_at
    record.check(resumed, 'the training was not killed and resumed')
    record.check(bool(pairs), 'no pair of runs came to its end')
    record.check(not status, f'the study ended with status {status}')
    if status or not pairs:
        for log in sorted(out.glob('*/seed_*/log.txt')):
            print(f'-- {log}\n{log.read_text(errors="replace")[-4000:]}', flush=True)


def _start(command: list[str]) -> subprocess.Popen:
    """The study in a process group of its own, which can be killed as a whole."""
    return subprocess.Popen(command, preexec_fn=os.setpgrp)


def _kill(study: subprocess.Popen) -> None:
    """End it and all that it started, and wait for that: its runs hold locks."""
    with suppress(ProcessLookupError):
        os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    time.sleep(2)


# ------------------------------------------------------------------ what is run
def write_grid(sizes: TrainingSizes, folder: Path, steps: int) -> str:
    """Write the grid of the study and the configs of its cells.

    Args:
        sizes: of it all.
        folder: where to.
        steps: of each training.

    Returns:
        Path of the grid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / 'shapes'
    cells = {}
    for cell, title in CELLS.items():
        cfg = training_config(sizes, cell, f'{root}/', steps)
        cells[cell] = dict(config=_write_config(folder / f'{cell}.py', cfg.to_dict()), title=title)
    bank = 'default_hooks.prompt_bank.bank'
    novel = {
        'test_dataloader.dataset.ann_file': 'annotations/val_novel.json',
        'test_evaluator.ann_file': f'{root}/annotations/val_novel.json',
        f'{bank}.data_root': f'{root}/',
        f'{bank}.ann_file': 'annotations/prompts_novel.json',
        f'{bank}.data_prefix': dict(img=''),
    }
    first, *others = cells
    content = dict(
        name='gpu-check',
        cells=cells,
        questions=[dict(title='GRQO', baseline=first, cells=others, seeds=sizes.seeds)],
        evaluations=dict(zip(SPLITS, ({}, novel), strict=True)),
        primary=SPLITS,
        shapes={str(root): dict(sizes.shapes)},
    )
    return _write_config(folder / 'grid.py', content)


def _write_config(path: Path, content: dict) -> str:
    lines = [f'{key} = {value!r}\n' for key, value in content.items()]
    path.write_text(''.join(lines), encoding='utf-8')
    return str(path)


def training_config(sizes: TrainingSizes, cell: str, root: str, steps: int) -> Config:
    """A cell's config: the shapes set's with AMP, and, unless tiny, the model of a large one.

    Args:
        sizes: of it all.
        cell: one of ``CELLS``.
        root: folder of the data.
        steps: of the training.
    """
    cfg = load_config(f'{cell}_r18_shapes.py', None)
    if sizes.model is not None:
        small = cfg.model
        cfg.model = load_config(sizes.model.replace('dino_r1', cell), None).model
        cfg.model.backbone.update(init_cfg=None, with_cp=False)
        cfg.model.encoder.num_cp = 0
        cfg.model.text_alignment = None
        cfg.model.num_queries = 300  # of the 1360 tokens that 256 pixels have
        # what lets a few hundred steps from nothing teach anything
        cfg.model.test_cfg = small.test_cfg
        cfg.model.bbox_head.loss_cls = small.bbox_head.loss_cls
        fusion = cfg.model.encoder.fusion_layer_cfg
        fusion.init_values = small.encoder.fusion_layer_cfg.init_values
        cfg.optim_wrapper.optimizer.lr = 4e-4
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.batch_size = sizes.batch_size  # without workers, which take seconds to end
        loader.dataset.data_root = root
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (sizes.shapes['image_size'],) * 2
    cfg.test_evaluator.ann_file = f'{root}annotations/val.json'
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.optim_wrapper = amp_wrapper_cfg(cfg, 'bfloat16')
    warm_up, cosine = cfg.param_scheduler
    warm_up.end = cosine.begin = max(1, steps // 6)
    cosine.end = steps
    cfg.train_cfg.max_iters = steps
    cfg.default_hooks.checkpoint.interval = max(1, steps // 3)
    cfg.default_hooks.prompt_bank.bank.shots = 4
    cfg.default_hooks.logger.interval = cfg.log_processor.window_size = max(1, min(10, steps // 6))
    return cfg


# ----------------------------------------------------------------- what is read
def _last_checkpoint(run: Path) -> int | None:
    """The step of a run's last checkpoint, None while there is none."""
    try:
        name = Path((run / 'last_checkpoint').read_text()).stem
        return int(name.rpartition('_')[2]) if (run / f'{name}.pth').exists() else None
    except (FileNotFoundError, ValueError):
        return None


def first_step_of_the_last_start(run: Path) -> int | None:
    """The first step in a run's newest log, None where it has one log only.

    Args:
        run: folder of the run.
    """
    logs = sorted(run.glob('*/vis_data/scalars.json'))
    with suppress(FileNotFoundError, IndexError):
        return read_run(logs[1:][-1])[0]['step']
    return None


def read_runs(out: Path, seeds: int) -> Iterator[dict]:
    """A row for each run that has logged anything, the same keys in all.

    Args:
        out: folder of the study.
        seeds: at most so many.
    """
    for seed in range(seeds):
        for cell, title in CELLS.items():
            run = out / cell / f'seed_{seed}'
            with suppress(FileNotFoundError, ValueError, IndexError):
                last, result = read_run(run)[-1], {}
                if (run / 'result.json').exists():
                    result = json.loads((run / 'result.json').read_text())
                row = {'seed': seed, 'model': title, 'steps': last['step'], 'loss': last['loss']}
                row['seconds a step'] = result.get('seconds_per_step', last['time'])
                for split in SPLITS:
                    for metric in ('AP', 'AP50'):
                        row[f'{metric} {split}'] = (
                            result.get('metrics', {}).get(split, {}).get(metric)
                        )
                yield row


def pairs_of(runs: list[dict]) -> list[dict]:
    """For each seed with two finished runs the difference of each AP, DINO-R1 less VIS-GDINO.

    Args:
        runs: of :func:`read_runs`.
    """
    kinds = [f'{metric} {split}' for split in SPLITS for metric in ('AP', 'AP50')]
    finished = {(r['seed'], r['model']): r for r in runs if None not in (r[k] for k in kinds)}
    one, other = CELLS.values()
    seeds = sorted({seed for seed, _ in finished})
    return [
        {'seed': seed, **{k: finished[seed, one][k] - finished[seed, other][k] for k in kinds}}
        for seed in seeds
        if (seed, one) in finished and (seed, other) in finished
    ]
