"""Curves of trainings: ``mim run mmdet_dino_r1 plot_training WORK_DIR [WORK_DIR2 ...] --out FILE``.

Losses, rewards, KL and AP of any training with this package, several in one figure, from the log
that mmengine keeps in ``WORK_DIR/<timestamp>/vis_data/scalars.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from mmdet_dino_r1.visualization.curves import AP_KEYS, draw_runs


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        prog='plot_training', description='Losses, rewards, KL and AP of one or several trainings.'
    )
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='WORK_DIR', help='or one of its logs, scalars.json'
    )
    parser.add_argument('--labels', help='names of the runs: SFT,GRQO (default: of the folders)')
    parser.add_argument('--out', type=Path, required=True, help='picture to write: *.png')
    options = parser.parse_args(args)
    names = [str(path) for path in options.runs]
    if len({path.name for path in options.runs}) == len(names):
        names = [path.name for path in options.runs]
    options.labels = options.labels.split(',') if options.labels else names
    if len(set(options.labels)) != len(options.runs):
        parser.error(f'--labels must give each of the {len(options.runs)} runs a name of its own')
    return options


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_args(args)
    try:
        pairs = zip(options.labels, options.runs, strict=True)
        figure = draw_runs({label: read_run(path) for label, path in pairs})
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(options.out), figure[..., ::-1]):
            raise OSError(f'Could not write {options.out}.')
    except (ValueError, OSError, cv2.error) as error:
        print(f'plot_training: {error}', file=sys.stderr)
        return 2
    print(f'wrote {options.out}')
    return 0


def read_run(path: Path) -> list[dict]:
    """What a training logged, through all its resumptions.

    mmengine counts validations in epochs, or not at all; here their ``step`` is the iteration
    last logged before. A resumed training has a log for each start: of an earlier one counts what
    lies before the next one's first step, so that of a training begun anew only the last remains.

    Args:
        path: work dir, one of its ``<timestamp>`` folders, or a ``scalars.json``.

    Returns:
        Lines of training steps and validations, ``step`` in iterations, ascending.

    Raises:
        FileNotFoundError: there is no log of a training.
        ValueError: a log is broken.
    """
    patterns = ('vis_data/scalars.json', '*/vis_data/scalars.json')
    files = [path] if path.is_file() else sorted(f for p in patterns for f in path.glob(p))
    rows: list[dict] = []
    for lines in reversed([_read(file) for file in files]):
        if not any('loss' in line for line in lines):
            continue  # of a test
        first = rows[0]['step'] if rows else float('inf')
        rows = [line for line in lines if line['step'] < first] + rows
    if not rows:
        raise FileNotFoundError(
            f'{path} holds no log of a training (<timestamp>/vis_data/scalars.json).'
        )
    return rows


def _read(file: Path) -> list[dict]:
    """Training steps and validations of one start."""
    rows, step = [], 0
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f'{file}, line {number}, is not JSON: {error}') from error
        if 'loss' in row:
            step = row['step']
            rows.append(row)
        elif any(key in row for key in AP_KEYS):
            rows.append(dict(row, step=step))
    return rows


if __name__ == '__main__':
    sys.exit(main())
