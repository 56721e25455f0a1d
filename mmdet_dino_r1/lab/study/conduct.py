"""A whole study, in its folder ``out``: draw data, check configs, do runs in processes, report."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from ...checks.config_keys import explain_misspelt
from ...checks.preflight import explain_missing, explain_mistake
from ...testing.shapes import ShapesConfig, generate_shapes, shapes_checksums
from ...testing.shapes_drawing import DIFFICULTIES
from ..figure import write_image
from .grid import Grid, Run, evaluation_config, training_config
from .plot import draw_report
from .report import build_report, to_markdown
from .results import read_json, read_results, write_json
from .run import claim, execute, explain_unmeasured, is_done

DATA, LOG = 'data.json', 'log.txt'
NOT_MINE = 3  # exit status of a process whose run is another's


def chosen_runs(
    grid: Grid, variants: Sequence[str] | None, seeds: int | None, one: Sequence[str] | None
) -> list[Run]:
    """The runs asked for: of some variants, so many seeds, or one; ValueError: there is none."""
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
    """Do one run in this process; False: left to another. FileNotFoundError: no study was begun."""
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
    """Draw the data, check everything, then do what is not done yet; gives the runs that failed.

    ``jobs`` at the same time (None: one per core, one on a GPU), each in a process of its own by
    ``command`` and ``--run VARIANT SEED``.
    """
    out.mkdir(parents=True, exist_ok=True)
    with claim(out, waits=True):  # another process may be drawing
        write_json(out / DATA, draw_data(grid))
    check(grid, runs, out)
    waiting = [run for run in runs if not is_done(grid, run, out)]
    print(f'{grid.name}: {len(runs) - len(waiting)} of {len(runs)} runs are done', flush=True)
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    failed = _do_in_processes(waiting, out, jobs, command)
    for run in failed:
        print(f'study: {run} failed; see {run.folder(out) / LOG}', file=sys.stderr)
    return failed


def _do_in_processes(
    runs: Sequence[Run], out: Path, jobs: int, command: Sequence[str]
) -> list[Run]:
    """Do each run in a process whose output goes to the run's ``log.txt``; gives those that failed.

    What ends this, Ctrl-C above all, ends the processes: what they wrote is whole at any moment.
    """
    environment = os.environ | {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // jobs))}
    waiting, running, failed = list(runs), {}, []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                run.folder(out).mkdir(parents=True, exist_ok=True)
                with (run.folder(out) / LOG).open('a') as log:
                    process = subprocess.Popen(
                        [*command, '--run', run.variant.name, str(run.seed)],
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                running[process] = (run, time.monotonic())
                print(f'{run}: begins', flush=True)
            time.sleep(0.1)
            for process in [one for one in running if one.poll() is not None]:
                run, start = running.pop(process)
                state = {0: 'done', NOT_MINE: 'left to another process'}
                told = state.get(process.returncode, 'FAILED')
                print(f'{run}: {told} after {(time.monotonic() - start) / 60:.1f} min', flush=True)
                if process.returncode not in state:
                    failed.append(run)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return failed


def draw_data(grid: Grid) -> dict[str, dict]:
    """Make the shapes sets that a grid names, unless they are there; gives their checksums.

    FileExistsError: a folder holds something else; ValueError: the set that is there is another.
    """
    checksums = {}
    for root, settings in grid.shapes.items():
        drawn = {key: value for key, value in settings.items() if key != 'checksums'}
        drawn['difficulty'] = DIFFICULTIES[drawn.get('difficulty', 'standard')]
        try:
            generate_shapes(root, ShapesConfig(**drawn), os.cpu_count() or 1)
        except FileExistsError as error:
            raise FileExistsError(
                f'{root} holds a shapes set of other settings than those of {grid.name}. Move or '
                'delete it, or start where there is none.'
            ) from error
        checksums[root] = found = shapes_checksums(root)
        wanted = found | settings.get('checksums', {})
        if found['annotations'] != wanted['annotations']:
            raise ValueError(
                f'{root} is not the set of {grid.name}: checksum of the annotations '
                f'{found["annotations"]}, wanted {wanted["annotations"]}. Delete the folder; if it '
                'comes back the same, numpy or OpenCV draw other boxes here.'
            )
        if found != wanted:
            told = f'{found["pixels"]}, wanted {wanted["pixels"]}'
            told = f'{root}: pixels differ from those of {grid.name} ({told}), the boxes do not.'
            print(f'study: {told} Another OpenCV rounds otherwise.', file=sys.stderr)
    return checksums


def check(grid: Grid, runs: Sequence[Run], out: Path) -> None:
    """Look at every config of the runs to do before anything is trained; raises as its parts do."""
    for variant in {run.variant.name: run.variant for run in runs}.values():
        cfg = training_config(grid, Run(variant, 0), out)
        _check_config(cfg, 'train', f'the variant {variant.name}')
        for name in grid.evaluations:
            tested = evaluation_config(cfg, grid, name, 0)
            _check_config(tested, 'test', f'the variant {variant.name}, evaluation {name}')


def _check_config(cfg: Config, stage: str, title: str) -> None:
    # a test's weights come from the training
    args = Namespace(config=title, checkpoint=os.devnull, resume=None)
    checks = (explain_misspelt, explain_mistake, explain_missing)
    for explain in (*checks, lambda *_: explain_unmeasured(cfg)):
        if told := explain(cfg, args, stage):
            raise ValueError(told if title in told else f'{title}: {told}')


def write_report(grid: Grid, out: Path, needed: bool = True) -> None:
    """Write ``report.md``, ``report.json`` and plots; ValueError: no run is finished and needed."""
    runs, ignored = read_results(out, grid.variants)
    if not runs:
        if needed:
            raise ValueError(f'{out} has no finished run of {grid.name}; run the study first.')
        return
    report = build_report(grid, runs, ignored)
    (out / 'report.md').write_text(to_markdown(report), encoding='utf-8')
    write_json(out / 'report.json', report)
    for name, image in draw_report(report).items():
        write_image(out / f'{name}.png', image)
    print(f'wrote {out / "report.md"}')
