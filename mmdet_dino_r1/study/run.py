"""One run of a study: train, test in every way the grid asks for, write the figures down.

``OUT/<cell>/seed_<n>/`` holds ``result.json`` (metrics), ``dynamics.json`` (what the queries do),
``weights.pth``, mmengine's logs and the configs of the tests. What is there already is not done
again; a training that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mmdet
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..benchmark.environment import cpu_model
from ..version import __version__
from .dynamics import measure_dynamics
from .grid import Grid, Run, evaluation_config, fingerprint, training_config

RESULT, DYNAMICS, WEIGHTS, LOCK = 'result.json', 'dynamics.json', 'weights.pth', 'lock'
DYNAMICS_IMAGES = 50
_METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50'}


class AnotherRun(ValueError):
    """The folder holds results of other settings under the same name."""


def is_done(grid: Grid, run: Run, out: Path) -> bool:
    """Whether nothing is left to do.

    Args:
        grid: the study.
        run: cell and seed.
        out: folder of the study.

    Raises:
        AnotherRun: what is there was made with other settings.
    """
    folder = run.folder(out)
    result = read_json(folder / RESULT)
    if result and result['fingerprint'] != fingerprint(training_config(grid, run, out)):
        raise AnotherRun(
            f'{folder} holds a run of the cell {run.cell.name!r} that was trained with other '
            'settings. Delete the folder, or choose another --out.'
        )
    return (
        set(grid.evaluations) <= result.get('metrics', {}).keys()
        and {split_of(name) for name in grid.dynamics} <= read_json(folder / DYNAMICS).keys()
    )


def execute(grid: Grid, run: Run, out: Path, data: Mapping) -> bool:
    """Train and test, as far as that is not done.

    Args:
        grid: the study.
        run: cell and seed.
        out: folder of the study.
        data: what to write down about the data.

    Returns:
        False where another process is at this very run.

    Raises:
        AnotherRun: the folder holds results of other settings.
    """
    folder = run.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with _claim(folder) as is_mine:
        if is_mine and not is_done(grid, run, out):
            register_all_modules()
            if not (folder / RESULT).exists():
                _train(grid, run, out, data)
            for name in grid.evaluations:
                _evaluate(grid, run, out, name)
    return is_mine


def split_of(evaluation: str) -> str:
    """'novel/g16' -> 'novel'."""
    return evaluation.partition('/')[0]


# ------------------------------------------------------------------ training
def _train(grid: Grid, run: Run, out: Path, data: Mapping) -> None:
    """Train, keep the weights alone, and begin the result."""
    folder = run.folder(out)
    cfg = training_config(grid, run, out)
    result = dict(cell=run.cell.name, seed=run.seed, title=run.cell.title)
    result['fingerprint'] = fingerprint(cfg)
    cfg.experiment_name = f'{grid.name}-{run.cell.name}-{run.seed}'
    if find_latest_checkpoint(str(folder)) is not None:
        cfg.resume, cfg.load_from = True, None
    runner = Runner.from_cfg(cfg)
    runner.train()

    rows = read_log(folder)
    per_step = statistics.median(row['time'] for row in rows)
    result |= dict(
        steps=runner.iter,
        seconds_per_step=per_step,
        train_seconds=per_step * runner.iter,
        training=grqo_figures(rows),
        versions=dict(mmdet_dino_r1=__version__, torch=torch.__version__, mmdet=mmdet.__version__),
        device=_device_of(runner.model),
        data=dict(data),
        metrics={},
    )
    last = find_latest_checkpoint(str(folder))
    checkpoint = CheckpointLoader.load_checkpoint(last, map_location='cpu')
    torch.save(dict(meta={}, state_dict=checkpoint['state_dict']), folder / WEIGHTS)
    write_json(folder / RESULT, result)
    for path in folder.glob(Path(last).name.replace(str(runner.iter), '*')):
        path.unlink()


def read_log(folder: Path) -> list[dict]:
    """The steps that mmengine logged below a folder, over all starts, in their order."""
    rows = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                rows[row['step']] = row  # a resumed run repeats the steps that it lost
    return [rows[step] for step in sorted(rows)]


def grqo_figures(rows: list[dict]) -> dict[str, float]:
    """Mean over the log of each figure that GRQO logs; empty for a supervised run."""
    names = {name for row in rows for name in row if 'grqo' in name}
    return {
        name: statistics.fmean(row[name] for row in rows if name in row) for name in sorted(names)
    }


def _device_of(model: nn.Module) -> str:
    device = next(model.parameters()).device
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{cpu_model()}, threads: {torch.get_num_threads()}'


# ------------------------------------------------------------------- testing
def _evaluate(grid: Grid, run: Run, out: Path, name: str) -> None:
    """One test, and a look at the queries where the grid asks for it."""
    folder = run.folder(out)
    result, dynamics = read_json(folder / RESULT), read_json(folder / DYNAMICS)
    looks = name in grid.dynamics and split_of(name) not in dynamics
    if name in result['metrics'] and not looks:
        return
    cfg = evaluation_config(training_config(grid, run, out), grid, name, run.seed)
    cfg.experiment_name = f'{grid.name}-{run.cell.name}-{run.seed}-{name.replace("/", "-")}'
    cfg.load_from = str(folder / WEIGHTS)
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    if looks:
        model, dataset = runner.model, runner.test_dataloader.dataset
        dynamics[split_of(name)] = measure_dynamics(model, dataset, DYNAMICS_IMAGES)
        write_json(folder / DYNAMICS, dynamics)
    result['metrics'][name] = {short: metrics[long] for short, long in _METRICS.items()}
    write_json(folder / RESULT, result)


# --------------------------------------------------------------------- files
def read_json(path: Path) -> dict:
    """A file's content, ``{}`` where there is none."""
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def write_json(path: Path, content: Mapping) -> None:
    """Write a file that is whole whenever it is there."""
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    os.replace(part, path)


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Whether this process is the only one at a run; the claim dies with the process."""
    with (folder / LOCK).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
