"""A whole study: draw its data, check its configs, do its runs in processes, write its report.

Names: grid = the study; run = one of its runs; out = folder of the study.
"""

from __future__ import annotations

import os
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

import torch

from ...checks.config_keys import misspelt_keys, report_misspelt
from ...checks.preflight import explain_mistake, find_missing, report_missing
from ...testing.shapes import ShapesConfig, generate_shapes, shapes_checksums
from ...testing.shapes_drawing import DIFFICULTIES
from ..figure import write_image
from .grid import Grid, Run, evaluation_config, training_config
from .plot import draw_report
from .report import build_report, to_json, to_markdown
from .results import read_json, read_results, write_json
from .run import claim, execute, explain_unmeasured, is_done

DATA, LOG = 'data.json', 'log.txt'
NOT_MINE = 3  # exit status of a process whose run is another's


def chosen_runs(
    grid: Grid, variants: Sequence[str] | None, seeds: int | None, one: Sequence[str] | None
) -> list[Run]:
    """The runs that a command line asks for.

    Args:
        grid: the study.
        variants: only these.
        seeds: at most so many of each.
        one: name of a variant and a seed, this run alone.

    Raises:
        ValueError: the grid has no such variant or run.
    """
    option, named = ('--run', one[:1]) if one else ('--variants', variants)
    if unknown := sorted(set(named or ()) - grid.variants.keys()):
        raise ValueError(f'{option} {" ".join(unknown)}: the grid has {", ".join(grid.variants)}.')
    runs = list(grid.runs(named, seeds))
    if not one:
        return runs
    if chosen := [run for run in runs if str(run.seed) == one[1]]:
        return chosen
    raise ValueError(
        f'--run {" ".join(one)}: the grid runs {one[0]} with the seeds '
        f'{", ".join(str(run.seed) for run in runs)}.'
    )


def do_alone(grid: Grid, run: Run, out: Path) -> bool:
    """Do one run in this process; False where it is left to another process.

    Raises:
        FileNotFoundError: the study was never begun.
        ValueError: the run cannot be done.
        OSError: a file cannot be read or written.
    """
    if not (out / DATA).exists():
        raise FileNotFoundError(
            f'{out / DATA} is not there: start the study without --run, which draws and checks the '
            'data.'
        )
    try:
        return execute(grid, run, out, read_json(out / DATA))
    except (ValueError, OSError):
        traceback.print_exc()  # for the run's log
        raise


def do_all(
    grid: Grid, runs: Sequence[Run], out: Path, jobs: int | None, command: Sequence[str]
) -> list[Run]:
    """Draw the data, check everything, then train and test what is not done yet.

    Args:
        grid: the study.
        runs: to do.
        out: folder of the study.
        jobs: runs at the same time; None: one per core, one on a GPU.
        command: does one run in a process of its own, with ``--run VARIANT SEED`` added.

    Returns:
        The runs that failed.

    Raises:
        ValueError: a variant or an evaluation cannot work, or the folder holds another study's
            runs.
        OSError: data cannot be written.
    """
    _make_folder(out)
    with claim(out, waits=True):  # another process may be drawing
        write_json(out / DATA, draw_data(grid))
    check(grid, runs, out)
    waiting = [run for run in runs if not is_done(grid, run, out)]
    print(f'{grid.name}: {len(runs) - len(waiting)} of {len(runs)} runs are done', flush=True)
    cores = os.cpu_count() or 1
    jobs = jobs or (1 if torch.cuda.is_available() else cores)
    workers = _Workers(command, out, threads=max(1, cores // jobs))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            succeeded = list(pool.map(workers, waiting))
        except BaseException:  # Ctrl-C, above all: the pool would begin all that waits
            workers.stop()
            raise
    failed = [run for run, well in zip(waiting, succeeded, strict=True) if not well]
    for run in failed:
        print(f'study: {run} failed; see {run.folder(out) / LOG}', file=sys.stderr)
    return failed


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
            told = f'{found["pixels"]}, wanted {wanted["pixels"]}'
            told = f'{root}: pixels differ from those of {grid.name} ({told}), the boxes do not.'
            print(f'study: {told} Another OpenCV rounds otherwise.', file=sys.stderr)
    return checksums


def check(grid: Grid, runs: Sequence[Run], out: Path) -> None:
    """Look at every config of the ``runs`` to do before anything is trained.

    Raises:
        ValueError: with all that is wrong with the first config that cannot work.
    """
    args = Namespace(checkpoint=os.devnull, resume=None)  # a test's weights come from the training
    for variant in {run.variant.name: run.variant for run in runs}.values():
        cfg = training_config(grid, Run(variant, 0), out)
        _check_config(cfg, args, 'train', f'the variant {variant.name}')
        for name in grid.evaluations:
            tested = evaluation_config(cfg, grid, name, 0)
            _check_config(tested, args, 'test', f'the variant {variant.name}, evaluation {name}')


def _check_config(cfg, args: Namespace, stage: str, title: str) -> None:
    if wrong := misspelt_keys(cfg):
        raise ValueError(report_misspelt(wrong, title))
    if mistake := explain_mistake(cfg, args, stage):
        raise ValueError(f'{title}: {mistake}')
    if missing := find_missing(cfg, args, stage):
        raise ValueError(report_missing(missing, title))
    if unmeasured := explain_unmeasured(cfg):
        raise ValueError(f'{title}: {unmeasured}')


class _Workers:
    """Do runs, each in a process of its own, whose output goes to the run's ``log.txt``."""

    def __init__(self, command: Sequence[str], out: Path, threads: int) -> None:
        self.command, self.out = command, out
        self.environment = os.environ | {'OMP_NUM_THREADS': str(threads)}
        self.processes: set[subprocess.Popen] = set()
        self.stopped = False
        self.lock = threading.Lock()  # of the two above

    def __call__(self, run: Run) -> bool:
        """Whether the run ended well, or was left to another process."""
        command = [*self.command, '--run', run.variant.name, str(run.seed)]
        path = run.folder(self.out) / LOG
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
            print(f'{run}: begins', flush=True)
            status = process.wait()
        with self.lock:
            self.processes.remove(process)
        if self.stopped:
            return False
        minutes = (time.monotonic() - start) / 60
        state = {0: 'done', NOT_MINE: 'left to another process'}.get(status, 'FAILED')
        print(f'{run}: {state} after {minutes:.1f} min', flush=True)
        return status in (0, NOT_MINE)

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


def write_report(grid: Grid, out: Path, needed: bool = True) -> None:
    """Write ``report.md``, ``report.json`` and the plots of all runs in the folder.

    Args:
        grid: the study.
        out: its folder.
        needed: raise where no run is finished.

    Raises:
        ValueError: a file of results is broken, or no run is finished.
        OSError: there is no such folder, or a file cannot be written.
    """
    results = read_results(out, grid.variants)
    if not results.runs:
        if needed:
            raise ValueError(f'{out} has no finished run of {grid.name}; run the study first.')
        return
    report = build_report(grid, results)
    (out / 'report.md').write_text(to_markdown(report), encoding='utf-8')
    (out / 'report.json').write_text(to_json(report), encoding='utf-8')
    for name, image in draw_report(report).items():
        write_image(out / f'{name}.png', image)
    print(f'wrote {out / "report.md"}')
