"""What a study trains and compares: cells x seeds, read from a grid file.

A grid file is an mmengine config (``configs/studies/*.py``) that sets

    name         of the study, with its version: results of two versions are never mixed
    common       options that every run gets; options are those of ``--cfg-options``: dotted keys
    cells        name -> dict(config=..., title=..., options={...}): one way to train
    questions    [dict(title=..., baseline=cell, cells=[...], seeds=5)], first things first; each
                 cell is in one at least
    evaluations  name -> options of a test: split and prompts; the first part of the name, up to
                 '/', is the split
    primary      names of the evaluations to compare by
    dynamics     names of the evaluations after which the queries are looked at
    shapes       optional: folder -> dict(checksums=..., difficulty='hard', image_size=96, ...),
                 sets that are drawn if they are not there

Words: cell = one setting; run = a cell with one seed; options = changes of a config.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

from ...config.loading import load_config
from ...config.shipped import config_path
from ...testing.shapes import ShapesConfig
from ...testing.shapes_drawing import DIFFICULTIES


@dataclass(frozen=True)
class Cell:
    """One setting.

    Args:
        name: of its folder.
        title: in tables.
        config: file, or the bare name of a shipped one.
        options: changes of it, by dotted key.
    """

    name: str
    title: str
    config: str
    options: Mapping


@dataclass(frozen=True)
class Question:
    """Cells to compare with a baseline.

    Args:
        title: the question.
        baseline: name of the cell that differences are taken to.
        cells: names of the others.
        seeds: so many, 0, 1, ...
        axis: optional ``dict(label=..., values={cell: number}, log=bool)``: the number in which the
            cells differ, for a plot.
    """

    title: str
    baseline: str
    cells: tuple[str, ...]
    seeds: int
    axis: Mapping | None = None


@dataclass(frozen=True)
class Run:
    """A cell with one seed.

    Args:
        cell: how to train.
        seed: of the training and of the exemplars of its tests.
    """

    cell: Cell
    seed: int

    def folder(self, out: Path) -> Path:
        """Where the run's files lie below the folder ``out`` of the study."""
        return out / self.cell.name / f'seed_{self.seed}'


@dataclass(frozen=True)
class Grid:
    """A whole study; what each of its fields means is told at the head of this file.

    Args:
        name: of the study, with its version.
        cells: by name.
        questions: first things first.
        evaluations: options of each test, by name.
        primary: names of evaluations.
        common: options of every run.
        dynamics: names of evaluations.
        shapes: settings of each set, by folder.
    """

    name: str
    cells: Mapping[str, Cell]
    questions: Sequence[Question]
    evaluations: Mapping[str, Mapping]
    primary: Sequence[str]
    common: Mapping
    dynamics: Sequence[str]
    shapes: Mapping[str, Mapping]

    def runs(self, cells: Sequence[str] | None = None, seeds: int | None = None) -> Iterator[Run]:
        """All runs, each once: question by question, and in each seed by seed.

        Args:
            cells: only these.
            seeds: at most so many of each cell.
        """
        given = set()
        for question in self.questions:
            for seed in range(min(question.seeds, seeds or question.seeds)):
                for name in (question.baseline, *question.cells):
                    if (name, seed) not in given and (cells is None or name in cells):
                        given.add((name, seed))
                        yield Run(self.cells[name], seed)


def load_grid(path: str | Path) -> Grid:
    """Read a grid file.

    Args:
        path: of the file, or the name of a shipped one (``studies/grqo_shapes.py``).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, a key is missing or unknown, or a name is used that nothing
            has.
    """
    path = path if Path(path).is_file() else config_path(str(path))
    try:
        content = Config.fromfile(path).to_dict()
    except OSError:
        raise
    except Exception as error:  # a grid file is code: anything may happen
        raise ValueError(
            f'{path} cannot be read: {type(error).__name__}: {error}. Mend the file.'
        ) from error
    _check_top(path, content)
    grid = Grid(
        name=content['name'],
        cells={
            name: _read_cell(f"{path}: cells['{name}']", name, entry)
            for name, entry in content['cells'].items()
        },
        questions=[
            _read_question(f'{path}: questions[{index}]', entry)
            for index, entry in enumerate(content['questions'])
        ],
        evaluations=content['evaluations'],
        primary=content['primary'],
        common=content.get('common', {}),
        dynamics=content.get('dynamics', ()),
        shapes=content.get('shapes', {}),
    )
    _check_names(path, grid)
    for folder, settings in grid.shapes.items():
        _check_shapes(f"{path}: shapes['{folder}']", settings)
    return grid


# ------------------------------------------------------------------ checks
def _check_top(path: str | Path, content: Mapping) -> None:
    """Other names than a grid's are the file's own business, unless one looks like a slip."""
    others = [key for key in content if key not in _TYPES]
    for key in _TYPES:
        if key not in content and (near := get_close_matches(key, others, n=1, cutoff=0.8)):
            raise ValueError(f'{path} sets {near[0]} and no {key}: rename it, to {key} if meant.')
    if missing := [key for key in _NEEDED if not content.get(key)]:
        raise ValueError(f'{path} is no grid of a study: it does not set {", ".join(missing)}.')
    for key, kind in _TYPES.items():
        if key in content:
            _check_type(f'{path}: {key}', content[key], kind)
    for key in ('evaluations', 'shapes'):
        for name, entry in content.get(key, {}).items():
            _check_type(f"{path}: {key}['{name}']", entry, dict)


def _read_cell(where: str, name: str, entry: object) -> Cell:
    if not re.fullmatch(r'[\w.+-]+', name):
        raise ValueError(f'{where}: the name is one of a folder: letters, digits, "_", ".", "-".')
    _check_keys(where, entry, ('config',), ('title', 'options'))
    _check_type(f'{where}, options', entry.get('options', {}), dict)
    return Cell(name, entry.get('title', name), entry['config'], entry.get('options', {}))


def _read_question(where: str, entry: object) -> Question:
    _check_keys(where, entry, ('title', 'baseline', 'cells', 'seeds'), ('axis',))
    _check_type(f'{where}, cells', entry['cells'], (list, tuple))
    seeds = entry['seeds']
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f'{where}: seeds is {seeds!r}, not a number of at least 1.')
    if axis := entry.get('axis'):
        _check_keys(f'{where}, axis', axis, ('label', 'values'), ('log',))
        _check_type(f'{where}, axis, values', axis['values'], dict)
        if unknown := axis['values'].keys() - {entry['baseline'], *entry['cells']}:
            raise ValueError(
                f'{where}: axis has values for {", ".join(sorted(unknown))}, which the question '
                'does not compare.'
            )
    return Question(**dict(entry, cells=tuple(entry['cells'])))


def _check_names(path: str | Path, grid: Grid) -> None:
    """Every name that is used exists, and every cell is used."""
    asked = {name for question in grid.questions for name in (question.baseline, *question.cells)}
    for what, names, known in (
        ('questions name the cells', asked, grid.cells),
        ('primary names the evaluations', grid.primary, grid.evaluations),
        ('dynamics names the evaluations', grid.dynamics, grid.evaluations),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(
                f'{path}: {what} {", ".join(unknown)}, which it does not set. It has: '
                f'{", ".join(known)}.'
            )
    if idle := [name for name in grid.cells if name not in asked]:
        raise ValueError(
            f'{path}: no question names the cells {", ".join(idle)}, so nothing says with how many '
            'seeds to run them. Put them into a question or leave them out.'
        )


def _check_shapes(where: str, settings: Mapping) -> None:
    numbers = [field.name for field in fields(ShapesConfig) if field.name != 'difficulty']
    _check_keys(where, settings, (), ('checksums', 'difficulty', *numbers))
    if settings.get('difficulty', 'standard') not in DIFFICULTIES:
        raise ValueError(
            f'{where}: difficulty is {settings["difficulty"]!r}, not one of '
            f'{", ".join(DIFFICULTIES)}.'
        )
    _check_keys(f'{where}, checksums', settings.get('checksums', {}), (), ('annotations', 'pixels'))


def _check_keys(where: str, entry: object, needed: Sequence[str], others: Sequence[str]) -> None:
    _check_type(where, entry, dict)
    known = (*needed, *others)
    wrong = [f'lacks {key}' for key in needed if key not in entry]
    wrong += [f'has {key}' for key in entry if key not in known]
    if wrong:
        raise ValueError(f'{where} {" and ".join(wrong)}; its keys are {", ".join(known)}.')


def _check_type(where: str, value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind):
        name = (kind[0] if isinstance(kind, tuple) else kind).__name__
        raise ValueError(f'{where} is {value!r}, not a {name}.')


# ----------------------------------------------------------------- configs
def training_config(grid: Grid, run: Run, out: Path) -> Config:
    """The config of a run's training.

    Args:
        grid: whose ``common`` options it gets.
        run: cell and seed.
        out: folder of the study.

    Raises:
        FileNotFoundError: the cell's config does not exist.
        ValueError: the options do not fit the config.
    """
    cell = run.cell
    cfg = _copy(load_config(cell.config, None))
    options = {**grid.common, **cell.options, 'randomness.seed': run.seed}
    _merge(cfg, options, f'the cell {cell.name}')
    cfg.work_dir = str(run.folder(out))
    return cfg


def evaluation_config(cfg: Config, grid: Grid, name: str, seed: int) -> Config:
    """The config of one test of a trained run.

    The exemplars are drawn by the run's seed, so intervals over seeds hold their luck too, and all
    cells of a seed get the same ones.

    Args:
        cfg: of the training.
        grid: whose evaluation it is.
        name: of the evaluation.
        seed: of the run.

    Raises:
        ValueError: the options do not fit the config.
    """
    cfg = _copy(cfg)
    options = {**grid.evaluations[name], 'default_hooks.prompt_bank.bank.seed': seed}
    _merge(cfg, options, f'the evaluation {name}')
    cfg.work_dir = str(Path(cfg.work_dir) / 'tests' / name.replace('/', '_'))
    return cfg


def fingerprint(cfg: Config) -> str:
    """16 hexadecimal digits that change with anything that a config says but its folder."""
    content = {key: value for key, value in cfg.to_dict().items() if key != 'work_dir'}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copy(cfg: Config) -> Config:
    """A copy that a runner writes down as it is: to indent it takes a second, several times."""
    return Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)


def _merge(cfg: Config, options: Mapping, where: str) -> None:
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(f'{where}: its options do not fit the config: {error}') from error


_NEEDED = ('name', 'cells', 'questions', 'evaluations', 'primary')
_TYPES = dict(
    name=str,
    cells=dict,
    questions=(list, tuple),
    evaluations=dict,
    primary=(list, tuple),
    common=dict,
    dynamics=(list, tuple),
    shapes=dict,
)
