"""Train a grid of configs and seeds, and compare: ``mim run mmdet_dino_r1 study GRID --out DIR``.

GRID is a file as ``configs/studies/grqo_shapes.py`` (docs/study.md). What is done is not done again,
so the command may be stopped and repeated, and several may work in one folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


import torch

from mmdet_dino_r1.datasets.shapes import ShapesConfig, generate_shapes, shapes_checksums
from mmdet_dino_r1.datasets.shapes_drawing import DIFFICULTIES
from mmdet_dino_r1.study.grid import Grid, Run, evaluation_config, load_grid, training_config
from mmdet_dino_r1.study.run import execute, is_done, read_json, write_json
from mmdet_dino_r1.tools.config_keys import misspelt_keys, report_misspelt
from mmdet_dino_r1.tools.preflight import explain_mistake, find_missing, report_missing


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='study',
        description='Train a grid of configs and seeds, test every run in several ways, and write '
        'tables with paired differences and their 95 %% intervals.',
        epilog='example: mim run mmdet_dino_r1 study studies/grqo_shapes.py --out work_dirs/study',
    )
    add = parser.add_argument
    add('grid', help='file of the grid, or the name of a shipped one (studies/grqo_shapes.py)')
    add('--out', type=Path, required=True, help='folder of the study')
    add('--cells', nargs='+', metavar='CELL', help='only these')
    add('--seeds', type=_positive, help='at most so many seeds of each cell')
    add(
        '--jobs',
        type=_positive,
        help='runs at the same time, which share the cores (default: one per core, one on a GPU)',
    )
    add('--report', action='store_true', help='train nothing: tables and plots of what is there')
    add('--run', nargs=2, metavar=('CELL', 'SEED'), help='this one alone, in this process')
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        grid = load_grid(options.grid)
        if unknown := set(options.cells or ()) - grid.cells.keys():
            raise ValueError(
                f'--cells {" ".join(sorted(unknown))}: the grid has {", ".join(grid.cells)}.'
            )
        failed = []
        if options.run:
            cell, seed = options.run
            execute(
                grid,
                Run(grid.cells[cell], int(seed)),
                options.out,
                read_json(_file_of_data(options.out)),
            )
            return 0
        if not options.report:
            failed = train(grid, options)
        write_report(grid, options.out)
    except (ValueError, OSError) as error:
        print(f'study: {error}', file=sys.stderr)
        return 2
    for run in failed:
        log = run.folder(options.out) / 'log.txt'
        print(f'study: {run.cell.name}, seed {run.seed} failed; see {log}', file=sys.stderr)
    return 1 if failed else 0


# ------------------------------------------------------------------ training
def train(grid: Grid, options: argparse.Namespace) -> list[Run]:
    """Draw the data, check everything, then train and test what is not done yet.

    Args:
        grid: the study.
        options: of the command line.

    Returns:
        The runs that failed.

    Raises:
        ValueError: a cell or an evaluation cannot work, or the folder holds another study's runs.
        OSError: data cannot be written.
    """
    write_json(_file_of_data(options.out), draw_data(grid, options.out))
    runs = list(grid.runs(options.cells, options.seeds))
    check(grid, runs, options)
    waiting = [run for run in runs if not is_done(grid, run, options.out)]
    print(f'{grid.name}: {len(runs) - len(waiting)} of {len(runs)} runs are done', flush=True)
    jobs = options.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    worker = _Worker(options, threads=max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        succeeded = list(pool.map(worker, waiting))
    return [run for run, well in zip(waiting, succeeded, strict=True) if not well]


def draw_data(grid: Grid, out: Path) -> dict[str, dict]:
    """Make the shapes sets that the grid names, unless they are there.

    Args:
        grid: the study.
        out: folder of the study; created.

    Returns:
        The checksums of each set.

    Raises:
        ValueError: a set differs from the one that the grid was made for.
    """
    out.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for root, settings in grid.shapes.items():
        settings = dict(settings)
        wanted = settings.pop('checksums', {})
        difficulty = DIFFICULTIES[settings.pop('difficulty', 'standard')]
        generate_shapes(root, ShapesConfig(**settings, difficulty=difficulty), os.cpu_count() or 1)
        checksums[root] = found = shapes_checksums(root)
        if found['annotations'] != wanted.get('annotations', found['annotations']):
            raise ValueError(
                f'{root} is not the set of {grid.name}: checksum of the annotations '
                f'{found["annotations"]}, wanted {wanted["annotations"]}. Delete the folder; if it '
                'comes back the same, numpy or OpenCV draw other boxes here.'
            )
        if found['pixels'] != wanted.get('pixels', found['pixels']):
            print(
                f'study: {root}: pixels differ from those of {grid.name} ({found["pixels"]}, '
                f'wanted {wanted["pixels"]}), the boxes do not. Another OpenCV rounds otherwise.',
                file=sys.stderr,
            )
    return checksums


def check(grid: Grid, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Look at every config before anything is trained.

    Args:
        grid: the study.
        runs: to do.
        options: of the command line.

    Raises:
        ValueError: with all that is wrong with the first config that cannot work.
    """
    for cell in {run.cell.name: run.cell for run in runs}.values():
        cfg = training_config(grid, Run(cell, 0), options.out)
        tests = {
            f'{cell.name}, evaluation {name}': (evaluation_config(cfg, grid, name, 0), 'test')
            for name in grid.evaluations
        }
        for title, (checked, stage) in {cell.name: (cfg, 'train'), **tests}.items():
            # the weights of a test come from the training
            args = Namespace(checkpoint=os.devnull, resume=None)
            if wrong := misspelt_keys(checked):
                raise ValueError(report_misspelt(wrong, f'the cell {title}'))
            if mistake := explain_mistake(checked, args, stage):
                raise ValueError(f'the cell {title}: {mistake}')
            if missing := find_missing(checked, args, stage):
                raise ValueError(report_missing(missing, f'the cell {title}'))


class _Worker:
    """Does a run in a process of its own, whose output goes to the run's ``log.txt``."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        self.options = options
        self.environment = os.environ | {'OMP_NUM_THREADS': str(threads)}

    def __call__(self, run: Run) -> bool:
        folder = run.folder(self.options.out)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'mmdet_dino_r1.tools.study', self.options.grid]
        command += ['--out', str(self.options.out), '--run', run.cell.name, str(run.seed)]
        print(f'{run.cell.name}, seed {run.seed}: begins', flush=True)
        start = time.monotonic()
        with (folder / 'log.txt').open('a') as log:
            done = subprocess.run(
                command, env=self.environment, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        minutes = (time.monotonic() - start) / 60
        state = 'done' if done.returncode == 0 else 'FAILED'
        print(f'{run.cell.name}, seed {run.seed}: {state} in {minutes:.1f} min', flush=True)
        return done.returncode == 0


def _file_of_data(out: Path) -> Path:
    return out / 'data.json'


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError('a number of at least 1')
    return value


# -------------------------------------------------------------------- report
def write_report(grid: Grid, out: Path) -> None:
    """To be written."""


if __name__ == '__main__':
    sys.exit(main())
