"""Reading what mmengine logged of a training."""

from __future__ import annotations

import json
from pathlib import Path

from .curves import AP_KEYS


def read_run(path: Path) -> list[dict]:
    """Steps and validations that a training logged, through all its resumptions, ascending.

    The path is a work dir, one of its ``<timestamp>`` folders, or a ``scalars.json``.

    mmengine counts validations in epochs, or not at all; here their ``step`` is the iteration
    last logged before. A resumed training has a log for each start: of an earlier one counts what
    lies before the next one's first step, so that of a training begun anew only the last remains.
    FileNotFoundError: there is no log of a training.
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
