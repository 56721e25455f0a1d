"""What the runs of a study have left on disk.

<root>/<cell>/seed_<n>/result.json    how it was trained, and its metrics
<root>/<cell>/seed_<n>/dynamics.json  figures of its queries, by split; may be missing
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

RESULT, DYNAMICS = 'result.json', 'dynamics.json'
_AGAIN = 'Delete the file and run the study again.'
_TYPES = dict(
    cell=str,
    seed=int,
    title=str,
    steps=int,
    train_seconds=(int, float),
    seconds_per_step=(int, float),
    fingerprint=str,
    versions=dict,
    device=str,
    data=dict,
    training=dict,
    metrics=dict,
)
_METRICS = ('AP', 'AP50')


@dataclass(frozen=True)
class RunResult:
    """One training and its evaluations. What was not measured is nan.

    Attributes:
        cell: name in the grid.
        seed: of the training.
        title: of the cell, when it was run.
        steps: iterations trained.
        train_seconds: that the training took.
        seconds_per_step: of these.
        fingerprint: of what was run.
        versions: of packages, by name.
        device: in words.
        data: checksums, ``annotations`` and ``pixels``, by folder.
        training: means over the log, by figure; empty without GRQO.
        metrics: by evaluation, ``AP`` and ``AP50`` in [0, 1].
        dynamics: by split and figure; empty where there is no ``dynamics.json``.
    """

    cell: str
    seed: int
    title: str
    steps: int
    train_seconds: float
    seconds_per_step: float
    fingerprint: str
    versions: dict[str, str]
    device: str
    data: dict[str, dict[str, str]]
    training: dict[str, float]
    metrics: dict[str, dict[str, float]]
    dynamics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResults:
    """All runs of a study that are finished.

    Attributes:
        runs: by cell and seed, seeds ascending; a cell without a finished run is not there.
        ignored: folders of runs that are of no cell of the grid, ``CELL/seed_N``.
    """

    runs: dict[str, dict[int, RunResult]]
    ignored: list[str]


def read_results(root: str | Path, cells: Collection[str]) -> StudyResults:
    """Read every finished run below a folder.

    Args:
        root: the study's output.
        cells: names of the grid's; runs of others are listed and left alone.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'There is no folder {root}; run the study first.')
    found: dict[str, dict[int, RunResult]] = {}
    ignored = []
    for path in sorted(root.glob(f'*/seed_*/{RESULT}')):
        cell, seed = path.parts[-3], re.fullmatch(r'seed_(\d+)', path.parts[-2])
        if cell not in cells or seed is None:
            ignored.append('/'.join(path.parts[-3:-1]))
            continue
        run = read_result(path)
        if (run.cell, run.seed) != (cell, int(seed[1])):
            raise ValueError(
                f'{path} is of cell {run.cell!r}, seed {run.seed}, and lies in the wrong folder. '
                f'{_AGAIN}'
            )
        found.setdefault(cell, {})[run.seed] = run
    runs = {cell: dict(sorted(found[cell].items())) for cell in cells if cell in found}
    return StudyResults(runs, ignored)


def read_result(path: str | Path) -> RunResult:
    """Read ``result.json``, and ``dynamics.json`` where it lies beside it.

    Args:
        path: of ``result.json``.

    Raises:
        FileNotFoundError: there is no ``result.json``.
        ValueError: one of them is broken, or lacks something.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'There is no {path}; run the study first.')
    read = read_json(path)
    for key, kind in _TYPES.items():
        if key not in read:
            raise ValueError(f'{path} lacks "{key}". {_AGAIN}')
        if not isinstance(read[key], kind) or isinstance(read[key], bool):
            raise ValueError(f'{path}: "{key}" is {read[key]!r}. {_AGAIN}')
    metrics = {}
    for evaluation, of in read['metrics'].items():
        metrics[evaluation] = _numbers(path, f'metrics, {evaluation}', of)
        for metric in _METRICS:
            if metric not in of:
                raise ValueError(f'{path}: {evaluation} lacks "{metric}". {_AGAIN}')
    beside = path.with_name(DYNAMICS)
    return RunResult(
        **{key: read[key] for key in _TYPES if key not in ('training', 'metrics')},
        training=_numbers(path, 'training', read['training']),
        metrics=metrics,
        dynamics={split: _numbers(beside, split, of) for split, of in read_json(beside).items()},
    )


def read_json(path: Path) -> dict:
    """A file's content, ``{}`` where there is none.

    Args:
        path: of a JSON object.

    Raises:
        ValueError: the file is broken.
    """
    if not path.exists():
        return {}
    try:
        read = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # neither text nor JSON, for example cut short
        raise ValueError(f'{path} is broken: {error}. {_AGAIN}') from error
    if not isinstance(read, dict):
        raise ValueError(f'{path} holds no JSON object. {_AGAIN}')
    return read


def _numbers(path: Path, where: str, values: object) -> dict[str, float]:
    """Numbers by name; null is nan."""
    if not isinstance(values, Mapping):
        raise ValueError(f'{path}: "{where}" is {values!r}, not numbers by name. {_AGAIN}')
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f'{path}: "{name}" of "{where}" is {value!r}, no number. {_AGAIN}')
    return {name: nan if value is None else float(value) for name, value in values.items()}
