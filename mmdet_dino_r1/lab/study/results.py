"""What the runs of a study have left on disk.

<root>/<variant>/seed_<n>/result.json       how it was trained, and its metrics
<root>/<variant>/seed_<n>/diagnostics.json  figures of its queries, by split; may be missing
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import get_origin, get_type_hints

from ...utils.atomic_write import atomic_write

RESULT, DIAGNOSTICS = 'result.json', 'diagnostics.json'
METRICS = ('AP', 'AP50')
# as versions before 0.6 wrote them; read until 0.7
_OLD_DIAGNOSTICS, _OLD_VARIANT = 'dynamics.json', 'cell'
_AGAIN = 'Delete the file and run the study again.'


@dataclass(frozen=True)
class RunResult:
    """One training and its evaluations. What was not measured is nan.

    Attributes:
        variant: name in the grid.
        seed: of the training.
        title: of the variant, when it was run.
        steps: iterations trained.
        train_seconds: that the training took.
        seconds_per_step: of these.
        fingerprint: of what was run.
        versions: of packages, by name.
        device: in words.
        data: checksums, ``annotations`` and ``pixels``, by folder.
        training: means over the log, by figure; empty without GRQO.
        metrics: by evaluation, ``AP`` and ``AP50`` in [0, 1].
        diagnostics: by split and figure; empty where there is no file of them.
    """

    variant: str
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
    diagnostics: dict[str, dict[str, float]] = field(default_factory=dict)


# what JSON must give for each; the diagnostics have a file of their own
_TYPES = {
    name: (int, float) if hint is float else get_origin(hint) or hint
    for name, hint in get_type_hints(RunResult).items()
    if name != 'diagnostics'
}


@dataclass(frozen=True)
class StudyResults:
    """All runs of a study that are finished.

    Attributes:
        runs: by variant and seed, seeds ascending; a variant without a finished run is not there.
        ignored: folders of runs that are of no variant of the grid, ``VARIANT/seed_N``.
    """

    runs: dict[str, dict[int, RunResult]]
    ignored: list[str]


def read_results(root: str | Path, variants: Collection[str]) -> StudyResults:
    """Read every finished run below a folder.

    Args:
        root: the study's output.
        variants: names of the grid's; runs of others are listed and left alone.

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
        variant, seed = path.parts[-3], re.fullmatch(r'seed_(\d+)', path.parts[-2])
        if variant not in variants or seed is None:
            ignored.append('/'.join(path.parts[-3:-1]))
            continue
        run = read_result(path)
        if (run.variant, run.seed) != (variant, int(seed[1])):
            raise ValueError(
                f'{path} is of variant {run.variant!r}, seed {run.seed}, and lies in the wrong '
                f'folder. {_AGAIN}'
            )
        found.setdefault(variant, {})[run.seed] = run
    runs = {name: dict(sorted(found[name].items())) for name in variants if name in found}
    return StudyResults(runs, ignored)


def read_result(path: Path) -> RunResult:
    """Read ``result.json``, and the diagnostics where they lie beside it.

    Raises:
        ValueError: one of them is broken, or lacks something.
    """
    read = read_json(path)
    if _OLD_VARIANT in read:
        read.setdefault('variant', read[_OLD_VARIANT])
    for key, kind in _TYPES.items():
        if key not in read:
            raise ValueError(f'{path} lacks "{key}". {_AGAIN}')
        if not isinstance(read[key], kind) or isinstance(read[key], bool):
            raise ValueError(f'{path}: "{key}" is {read[key]!r}. {_AGAIN}')
    metrics = {
        evaluation: _numbers(path, f'metrics, {evaluation}', of)
        for evaluation, of in read['metrics'].items()
    }
    for evaluation, of in metrics.items():
        if lacking := [metric for metric in METRICS if metric not in of]:
            raise ValueError(f'{path}: {evaluation} lacks "{lacking[0]}". {_AGAIN}')
    beside = diagnostics_file(path.parent)
    return RunResult(
        **{key: read[key] for key in _TYPES if key not in ('training', 'metrics')},
        training=_numbers(path, 'training', read['training']),
        metrics=metrics,
        diagnostics={split: _numbers(beside, split, of) for split, of in read_json(beside).items()},
    )


def diagnostics_file(folder: Path) -> Path:
    """Where a run's diagnostics are, or will be."""
    old = folder / _OLD_DIAGNOSTICS
    return old if old.exists() else folder / DIAGNOSTICS


def read_json(path: Path) -> dict:
    """A JSON object from a file, ``{}`` where there is none.

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


def write_json(path: Path, content: Mapping) -> None:
    """Write content, a JSON object, to a path where a file is whole whenever it is there.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write(path, (json.dumps(content, indent=1) + '\n').encode())


def _numbers(path: Path, where: str, values: object) -> dict[str, float]:
    """Numbers by name; null is nan."""
    if not isinstance(values, Mapping):
        raise ValueError(f'{path}: "{where}" is {values!r}, not numbers by name. {_AGAIN}')
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f'{path}: "{name}" of "{where}" is {value!r}, no number. {_AGAIN}')
    return {name: nan if value is None else float(value) for name, value in values.items()}
