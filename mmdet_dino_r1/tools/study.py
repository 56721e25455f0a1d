"""Train a grid of configs and seeds, and compare: ``mim run mmdet_dino_r1 study GRID --out DIR``.

GRID is a file as ``configs/studies/grqo_shapes.py`` (docs/study.md). What is done is not done
again, so the command may be stopped and repeated, and several may work in one folder.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import torch

from mmdet_dino_r1.checks.config_keys import misspelt_keys, report_misspelt
from mmdet_dino_r1.checks.preflight import explain_mistake, find_missing, report_missing
from mmdet_dino_r1.lab.study.figures import draw_report
from mmdet_dino_r1.lab.study.grid import Grid, Run, evaluation_config, load_grid, training_config
from mmdet_dino_r1.lab.study.report import build_report, to_json, to_markdown
from mmdet_dino_r1.lab.study.results import StudyResults, read_json, read_results
from mmdet_dino_r1.lab.study.run import claim, execute, explain_unmeasured, is_done, write_json
from mmdet_dino_r1.testing.shapes import ShapesConfig, generate_shapes, shapes_checksums
from mmdet_dino_r1.testing.shapes_drawing import DIFFICULTIES

_NOT_MINE = 3  # exit status of a process whose run is another's


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='study',
        description='Train a grid of configs and seeds, test every run in several ways, and write '
        'tables with paired differences and their 95 % intervals.',
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
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        '--report', action='store_true', help='train nothing: tables and plots of what is there'
    )
    which.add_argument(
        '--run', nargs=2, metavar=('CELL', 'SEED'), help='this one alone, in this process'
    )
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        grid = load_grid(options.grid)
        runs = chosen_runs(grid, options)
        if options.run:
            return run_alone(grid, runs[0], options.out)
        return run_all(grid, runs, options)
    except (ValueError, OSError) as error:
        print(f'study: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('study: stopped; the same command goes on from here', file=sys.stderr)
        return 130


def chosen_runs(grid: Grid, options: argparse.Namespace) -> list[Run]:
    """The runs that the command line asks for.

    Args:
        grid: the study.
        options: of the command line.

    Raises:
        ValueError: the grid has no such cell or run.
    """
    named = options.run[:1] if options.run else options.cells
    if unknown := sorted(set(named or ()) - grid.cells.keys()):
        option = '--run' if options.run else '--cells'
        raise ValueError(f'{option} {" ".join(unknown)}: the grid has {", ".join(grid.cells)}.')
    runs = list(grid.runs(named, options.seeds))
    if not options.run:
        return runs
    if chosen := [run for run in runs if str(run.seed) == options.run[1]]:
        return chosen
    raise ValueError(
        f'--run {" ".join(options.run)}: the grid runs {named[0]} with the seeds '
        f'{", ".join(str(run.seed) for run in runs)}.'
    )


def run_alone(grid: Grid, run: Run, out: Path) -> int:
    """Do one run in this process.

    Args:
        grid: the study.
        run: cell and seed.
        out: folder of the study.

    Returns:
        The exit status.

    Raises:
        FileNotFoundError: the study was never begun.
        ValueError: the run cannot be done.
        OSError: a file cannot be read or written.
    """
    data = _file_of_data(out)
    if not data.exists():
        raise FileNotFoundError(
            f'{data} is not there: start the study without --run, which draws and checks the data.'
        )
    try:
        return 0 if execute(grid, run, out, read_json(data)) else _NOT_MINE
    except (ValueError, OSError):
        traceback.print_exc()  # for the run's log
        raise


def run_all(grid: Grid, runs: Sequence[Run], options: argparse.Namespace) -> int:
    """Do what is left to do, then report.

    Args:
        grid: the study.
        runs: to do.
        options: of the command line.

    Returns:
        The exit status.

    Raises:
        ValueError: nothing can be done, or there is nothing to report.
        OSError: a file cannot be read or written.
    """
    failed = [] if options.report else train(grid, runs, options)
    for run in failed:
        log = _log_of(run, options.out)
        print(f'study: {run.cell.name}, seed {run.seed} failed; see {log}', file=sys.stderr)
    results = read_results(options.out, grid.cells)
    if results.runs:
        write_report(grid, results, options.out)
    elif not failed:
        raise ValueError(f'{options.out} has no finished run of {grid.name}; run the study first.')
    return 1 if failed else 0


# ------------------------------------------------------------------ training
def train(grid: Grid, runs: Sequence[Run], options: argparse.Namespace) -> list[Run]:
    """Draw the data, check everything, then train and test what is not done yet.

    Args:
        grid: the study.
        runs: to do.
        options: of the command line.

    Returns:
        The runs that failed.

    Raises:
        ValueError: a cell or an evaluation cannot work, or the folder holds another study's runs.
        OSError: data cannot be written.
    """
    _make_folder(options.out)
    with claim(options.out, waits=True):  # another process may be drawing
        write_json(_file_of_data(options.out), draw_data(grid))
    check(grid, runs, options.out)
    waiting = [run for run in runs if not is_done(grid, run, options.out)]
    print(f'{grid.name}: {len(runs) - len(waiting)} of {len(runs)} runs are done', flush=True)
    jobs = options.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    workers = _Workers(options, threads=max(1, (os.cpu_count() or 1) // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            succeeded = list(pool.map(workers, waiting))
        except BaseException:  # Ctrl-C, above all: the pool would begin all that waits
            workers.stop()
            raise
    return [run for run, well in zip(waiting, succeeded, strict=True) if not well]


def draw_data(grid: Grid) -> dict[str, dict]:
    """Make the shapes sets that the ``grid`` names, unless they are there.

    Returns:
        The checksums of each set.

    Raises:
        FileExistsError: the folder of a set holds something else.
        ValueError: a set differs from the one that the grid was made for.
    """
    checksums = {}
    for root, settings in grid.shapes.items():
        settings = dict(settings)
        wanted = settings.pop('checksums', {})
        difficulty = DIFFICULTIES[settings.pop('difficulty', 'standard')]
        config = ShapesConfig(**settings, difficulty=difficulty)
        try:
            generate_shapes(root, config, os.cpu_count() or 1)
        except FileExistsError as error:
            raise FileExistsError(
                f'{root} holds a shapes set of other settings than those of {grid.name}. Move or '
                'delete it, or start where there is none.'
            ) from error
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


def check(grid: Grid, runs: Sequence[Run], out: Path) -> None:
    """Look at every config before anything is trained.

    Args:
        grid: the study.
        runs: to do.
        out: folder of the study.

    Raises:
        ValueError: with all that is wrong with the first config that cannot work.
    """
    for cell in {run.cell.name: run.cell for run in runs}.values():
        cfg = training_config(grid, Run(cell, 0), out)
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
            if unmeasured := explain_unmeasured(checked):
                raise ValueError(f'the cell {title}: {unmeasured}')


class _Workers:
    """Do runs, each in a process of its own, whose output goes to the run's ``log.txt``."""

    def __init__(self, options: argparse.Namespace, threads: int) -> None:
        self.options = options
        self.environment = os.environ | {'OMP_NUM_THREADS': str(threads)}
        self.processes: set[subprocess.Popen] = set()
        self.stopped = False
        self.lock = threading.Lock()  # of the two above

    def __call__(self, run: Run) -> bool:
        """Whether the run ended well, or was left to another process."""
        title = f'{run.cell.name}, seed {run.seed}'
        command = [sys.executable, '-m', 'mmdet_dino_r1.tools.study', self.options.grid]
        command += ['--out', str(self.options.out), '--run', run.cell.name, str(run.seed)]
        path = _log_of(run, self.options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with path.open('a') as log:
            with self.lock:
                if self.stopped:
                    return False
                process = subprocess.Popen(
                    command, env=self.environment, stdout=log, stderr=subprocess.STDOUT
                )
                self.processes.add(process)
            print(f'{title}: begins', flush=True)
            status = process.wait()
        with self.lock:
            self.processes.remove(process)
        if self.stopped:
            return False
        minutes = (time.monotonic() - start) / 60
        state = {0: 'done', _NOT_MINE: 'left to another process'}.get(status, 'FAILED')
        print(f'{title}: {state} after {minutes:.1f} min', flush=True)
        return status in (0, _NOT_MINE)

    def stop(self) -> None:
        """End what runs and begin nothing more."""
        with self.lock:
            self.stopped = True
            for process in self.processes:
                process.kill()  # what lies on the disk is whole at any moment


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(
            f'--out {out} cannot be written: {error.strerror}. Choose another folder.'
        ) from error


def _file_of_data(out: Path) -> Path:
    return out / 'data.json'


def _log_of(run: Run, out: Path) -> Path:
    return run.folder(out) / 'log.txt'


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of at least 1')
    return int(text)


# -------------------------------------------------------------------- report
def write_report(grid: Grid, results: StudyResults, out: Path) -> None:
    """Write ``report.md``, ``report.json`` and the plots of all that is there.

    Args:
        grid: the study.
        results: of its runs.
        out: its folder.

    Raises:
        OSError: a file cannot be written.
    """
    report = build_report(grid, results)
    (out / 'report.md').write_text(to_markdown(report), encoding='utf-8')
    (out / 'report.json').write_text(to_json(report), encoding='utf-8')
    for name, image in draw_report(report).items():
        if not cv2.imwrite(str(out / f'{name}.png'), image[..., ::-1]):
            raise OSError(f'Could not write {out / name}.png.')
    print(f'wrote {out / "report.md"}')


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    sys.exit(main())
