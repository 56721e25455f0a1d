"""One run of a study: train, test in every way the grid asks for, write the figures down.

A run's folder, in ``out``, that of the study, holds beside its results ``weights.pth``,
``fingerprint`` (of the settings, from the first step on) and mmengine's logs. What is there is not
done again; a training that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from ...utils.atomic_write import atomic_write
from ...utils.environment import describe_environment
from ..query_view.collect import view_dataset
from ..training.log import read_run
from .diagnostics import query_figures
from .grid import Grid, Run, evaluation_config, fingerprint, split_of, training_config
from .results import RESULT, diagnostics_file, read_json, read_result, write_json

WEIGHTS, FINGERPRINT, LOCK = 'weights.pth', 'fingerprint', 'lock'
DIAGNOSED_IMAGES = 50
_METRICS = {'AP': 'coco/bbox_mAP', 'AP50': 'coco/bbox_mAP_50'}


def is_done(grid: Grid, run: Run, out: Path) -> bool:
    """Whether nothing is left to do of a run; ValueError: it was made with other settings."""
    folder = run.folder(out)
    result = read_result(folder / RESULT) if (folder / RESULT).exists() else None
    found = {result['fingerprint']} if result else set()
    if (folder / FINGERPRINT).exists():  # a training that was stopped has no result yet
        found.add((folder / FINGERPRINT).read_text())
    if found and found != {fingerprint(training_config(grid, run, out))}:
        raise ValueError(
            f'{folder} holds a run of the variant {run.variant.name!r} that was trained with other '
            'settings. Delete the folder, or choose another --out.'
        )
    return result is not None and not _untested(grid, result)


def execute(grid: Grid, run: Run, out: Path, data: Mapping) -> bool:
    """Train and test, as far as that is not done; False where another process is at this run."""
    folder = run.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    with claim(folder) as is_mine:
        if is_mine and not is_done(grid, run, out):
            register_all_modules()
            if not (folder / RESULT).exists():
                _train(grid, run, out, data)
            _remove_checkpoints(folder)
            for name in _untested(grid, read_result(folder / RESULT)):
                _evaluate(grid, run, out, name)
    return is_mine


def _untested(grid: Grid, result: Mapping) -> list[str]:
    """The evaluations whose metrics, or diagnostics where they are asked for, are not there."""
    unseen = {one for one in grid.diagnostics if split_of(one) not in result['diagnostics']}
    return [one for one in grid.evaluations if one not in result['metrics'] or one in unseen]


def explain_unmeasured(cfg: Config) -> str | None:
    """Which figure a run would end without, and the remedy; None for none."""
    steps = (cfg.get('train_cfg') or {}).get('max_iters')
    every = cfg.get('default_hooks', {}).get('logger', {}).get('interval', 10)
    if steps and every > steps:
        return (
            f'it trains {steps} steps and logs every {every}th, so nothing would tell how long a '
            f'step takes. Set default_hooks.logger.interval to {steps} or less.'
        )
    evaluators = cfg.get('test_evaluator') or []
    if not any(map(_gives_ap, evaluators if isinstance(evaluators, list) else [evaluators])):
        return (
            f'its test_evaluator gives no {_METRICS["AP"]}, and a study compares that. Set '
            "test_evaluator.type to CocoMetric, its metric to 'bbox'."
        )
    return None


def _gives_ap(evaluator: Mapping) -> bool:
    kind = evaluator.get('type')
    kind = METRICS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, CocoMetric)):
        return False
    prefix = evaluator.get('prefix') or kind.default_prefix  # LVISMetric has its own
    return prefix == 'coco' and 'bbox' in evaluator.get('metric', 'bbox')


def _train(grid: Grid, run: Run, out: Path, data: Mapping) -> None:
    """Train, keep the weights alone, and begin the result."""
    folder = run.folder(out)
    cfg = training_config(grid, run, out)
    result = dict(variant=run.variant.name, seed=run.seed, title=run.variant.title)
    result['fingerprint'] = fingerprint(cfg)
    diagnostics_file(folder).unlink(missing_ok=True)  # of weights that are not there any more
    atomic_write(folder / FINGERPRINT, result['fingerprint'].encode())
    _name_run(cfg, f'{grid.name}-{run.variant.name}-{run.seed}')
    if (last := _last_checkpoint(folder)) is not None:
        cfg.resume, cfg.load_from = True, str(last)
    runner = Runner.from_cfg(cfg)
    runner.train()

    rows = [row for row in read_run(folder) if 'loss' in row]
    per_step = statistics.median(row['time'] for row in rows)
    device = next(runner.model.parameters()).device
    told = describe_environment(device)
    on_cpu = f'{told["CPU"]}, threads: {told["threads of torch"]}'
    result |= dict(
        steps=runner.iter,
        seconds_per_step=per_step,
        train_seconds=per_step * runner.iter,
        training=grqo_figures(rows),
        versions={name: told[name] for name in ('mmdet_dino_r1', 'torch', 'mmdet')},
        device=on_cpu if device.type == 'cpu' else told['device'],
        data=dict(data),
        metrics={},
    )
    checkpoint = CheckpointLoader.load_checkpoint(str(_last_checkpoint(folder)), map_location='cpu')
    torch.save(dict(meta={}, state_dict=checkpoint['state_dict']), folder / WEIGHTS)
    write_json(folder / RESULT, result)


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest one; mmengine notes its path as it was, and the study may have been moved."""
    noted = find_latest_checkpoint(str(folder))
    path = folder / Path(noted).name if noted else None
    return path if path and path.exists() else None


def _remove_checkpoints(folder: Path) -> None:
    """All but the weights, which are enough from now on."""
    for path in [*folder.glob('*.pth*'), folder / 'last_checkpoint']:
        if path.name != WEIGHTS:
            path.unlink(missing_ok=True)


def _name_run(cfg: Config, name: str) -> None:
    """Loggers and visualisers are kept by name: one process may have several runs."""
    cfg.experiment_name = name
    if cfg.get('visualizer'):
        cfg.visualizer.name = name


def grqo_figures(rows: list[dict]) -> dict[str, float]:
    """Mean over the log of each figure that GRQO logs; empty for a supervised run."""
    names = sorted({name for row in rows for name in row if 'grqo' in name})
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names}


def _evaluate(grid: Grid, run: Run, out: Path, name: str) -> None:
    """One test, and a look at the queries where the grid asks for it."""
    folder = run.folder(out)
    result, diagnostics = read_json(folder / RESULT), read_json(diagnostics_file(folder))
    if not (folder / WEIGHTS).exists():
        raise FileNotFoundError(
            f'{folder / WEIGHTS} is gone, and {folder / RESULT} lacks the test {name}. Delete the '
            'folder to train again.'
        )
    cfg = evaluation_config(training_config(grid, run, out), grid, name, run.seed)
    _name_run(cfg, f'{grid.name}-{run.variant.name}-{run.seed}-{name.replace("/", "-")}')
    cfg.load_from = str(folder / WEIGHTS)
    runner = Runner.from_cfg(cfg)
    metrics = runner.test()
    if not metrics.keys() >= set(_METRICS.values()):
        raise ValueError(f'{run}: the test {name} gave no {_METRICS["AP"]}.')
    if name in grid.diagnostics and split_of(name) not in diagnostics:
        views = view_dataset(runner.model, runner.test_dataloader.dataset, DIAGNOSED_IMAGES)
        diagnostics[split_of(name)] = query_figures(views)
        write_json(diagnostics_file(folder), diagnostics)
    result['metrics'][name] = {short: metrics[long] for short, long in _METRICS.items()}
    write_json(folder / RESULT, result)


@contextmanager
def claim(folder: Path, waits: bool = False) -> Iterator[bool]:
    """Whether, or with ``waits`` when, this process is alone in a folder; this dies with it."""
    with (folder / LOCK).open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
