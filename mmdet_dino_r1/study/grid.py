"""What a study trains and compares: cells x seeds, read from a grid file.

A grid file is an mmengine config (``configs/studies/*.py``) that sets

    name         of the study, with its version: results of two versions are never mixed
    common       options that every run gets; options are those of ``--cfg-options``: dotted keys
    cells        name -> dict(config=..., title=..., options={...}): one way to train
    questions    [dict(title=..., baseline=cell, cells=[...], seeds=5)], first things first
    evaluations  name -> options of a test: split and prompts; the first part of the name, up to
                 '/', is the split
    primary      names of the evaluations to compare by
    dynamics     names of the evaluations after which the queries are looked at
    shapes       optional: folder -> dict(checksums=..., difficulty='hard', image_size=96, ...), sets
                 that are drawn if they are not there

Words: cell = one setting; run = a cell with one seed; options = changes of a config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mmengine.config import Config

from ..shipped import config_path


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
    """A cell and a seed."""

    cell: Cell
    seed: int

    def folder(self, out: Path) -> Path:
        """Where the run's files lie."""
        return out / self.cell.name / f'seed_{self.seed}'


@dataclass(frozen=True)
class Grid:
    """A whole study; see the head of this file."""

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
        ValueError: a key is missing or unknown, or a name is used that nothing has.
    """
    path = path if Path(path).is_file() else config_path(str(path))
    content = {
        key: value
        for key, value in Config.fromfile(path).to_dict().items()
        if not key.startswith('_') and key in _KEYS
    }
    if missing := [key for key in _NEEDED if key not in content]:
        raise ValueError(f'{path} is no grid of a study: it does not set {", ".join(missing)}.')
    cells = {}
    for name, entry in content['cells'].items():
        if unknown := entry.keys() - {'config', 'title', 'options'} or 'config' not in entry:
            raise ValueError(
                f"{path}: cells['{name}'] has the keys config, title and options; got "
                f'{", ".join(sorted(entry)) if unknown else "no config"}.'
            )
        cells[name] = Cell(
            name, entry.get('title', name), entry['config'], entry.get('options', {})
        )
    questions = [
        Question(**dict(entry, cells=tuple(entry['cells']))) for entry in content['questions']
    ]
    named = {name for question in questions for name in (question.baseline, *question.cells)}
    for what, names, known in (
        ('questions name the cells', named, cells),
        ('primary names the evaluations', content['primary'], content['evaluations']),
        ('dynamics names the evaluations', content.get('dynamics', ()), content['evaluations']),
    ):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f'{path}: {what} {", ".join(sorted(unknown))}, which it does not set.')
    return Grid(
        name=content['name'],
        cells=cells,
        questions=questions,
        evaluations=content['evaluations'],
        primary=content['primary'],
        common=content.get('common', {}),
        dynamics=content.get('dynamics', ()),
        shapes=content.get('shapes', {}),
    )


def training_config(grid: Grid, run: Run, out: Path) -> Config:
    """The config of a run's training.

    Args:
        grid: whose ``common`` options it gets.
        run: cell and seed.
        out: folder of the study.

    Raises:
        FileNotFoundError: the cell's config does not exist.
    """
    cell = run.cell
    path = cell.config if Path(cell.config).is_file() else config_path(cell.config)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({**grid.common, **cell.options, 'randomness.seed': run.seed})
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
    """
    cfg = Config(cfg.to_dict())
    cfg.merge_from_dict({**grid.evaluations[name], 'default_hooks.prompt_bank.bank.seed': seed})
    cfg.work_dir = str(Path(cfg.work_dir) / 'tests' / name.replace('/', '_'))
    return cfg


def fingerprint(cfg: Config) -> str:
    """16 hexadecimal digits that change with anything that a config says but its folders."""
    content = {key: value for key, value in cfg.to_dict().items() if key != 'work_dir'}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


_KEYS = {field.name for field in fields(Grid)}
_NEEDED = ('name', 'cells', 'questions', 'evaluations', 'primary')
