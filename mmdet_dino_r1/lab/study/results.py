"""What the runs of a study have left on disk.

<root>/<variant>/seed_<n>/result.json       how it was trained, and its metrics
<root>/<variant>/seed_<n>/diagnostics.json  figures of its queries, by split; may be missing
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from ...utils.atomic_write import atomic_write
from .grid import check_keys, check_type

RESULT, DIAGNOSTICS = 'result.json', 'diagnostics.json'
METRICS = ('AP', 'AP50')
# as versions before 0.7 wrote them; read until 0.8
_OLD_DIAGNOSTICS, _OLD_VARIANT = 'dynamics.json', 'cell'
_AGAIN = 'Delete the file and run the study again.'

_NUMBER = (float, int)
_FIGURE = (*_NUMBER, type(None))  # what was not measured is None
# what is read of a result, and its types
_RESULT = dict(
    variant=str,
    seed=int,
    steps=int,
    train_seconds=_NUMBER,
    fingerprint=str,
    versions=dict,
    device=str,
    data=dict,  # checksums by folder and kind
    training=dict,  # means over the log, by figure; empty without GRQO
    metrics=dict,  # AP and AP50 in [0, 1] by evaluation
)


def read_results(
    root: Path, variants: Collection[str]
) -> tuple[dict[str, dict[int, dict]], list[str]]:
    """Every finished run of some variants, by variant and ascending seed, and others' folders.

    FileNotFoundError: there is no folder ``root``. ValueError: a file is broken.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'There is no folder {root}; run the study first.')
    found: dict[str, dict[int, dict]] = {}
    ignored = []
    for path in sorted(root.glob(f'*/seed_*/{RESULT}')):
        variant, seed = path.parts[-3], re.fullmatch(r'seed_(\d+)', path.parts[-2])
        if variant not in variants or seed is None:
            ignored.append('/'.join(path.parts[-3:-1]))
            continue
        run = read_result(path)
        if (run['variant'], run['seed']) != (variant, int(seed[1])):
            told = f'of variant {run["variant"]!r}, seed {run["seed"]}'
            raise ValueError(f'{path} is {told}, and lies in the wrong folder. {_AGAIN}')
        found.setdefault(variant, {})[run['seed']] = run
    return {name: dict(sorted(found[name].items())) for name in variants if name in found}, ignored


def read_result(path: Path) -> dict:
    """Read ``result.json`` and the diagnostics beside it; ValueError: one of them is broken."""
    read, beside = read_json(path), diagnostics_file(path.parent)
    if _OLD_VARIANT in read:
        read['variant'] = read.pop(_OLD_VARIANT)
    diagnostics = read_json(beside)
    try:
        check_keys(str(path), {key: read[key] for key in _RESULT if key in read}, (_RESULT, {}))
        for name, of in read['metrics'].items():
            check_keys(f'{path}: {name}', of, (dict.fromkeys(METRICS, _FIGURE), {}))
        figures = {f'{path}: training': read['training']}
        figures |= {f'{beside}: {split}': of for split, of in diagnostics.items()}
        for where, of in figures.items():
            check_type(where, of, dict)
            for name, value in of.items():
                check_type(f'{where}, {name}', value, _FIGURE)
    except ValueError as error:
        raise ValueError(f'{error} {_AGAIN}') from error
    return read | dict(diagnostics=diagnostics)


def diagnostics_file(folder: Path) -> Path:
    """Where a run's diagnostics are, or will be."""
    old = folder / _OLD_DIAGNOSTICS
    return old if old.exists() else folder / DIAGNOSTICS


def read_json(path: Path) -> dict:
    """A JSON object from a file, ``{}`` where there is none; ValueError: the file is broken."""
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
    """Write a JSON object to a path where a file is whole whenever it is there."""
    atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + '\n').encode())
