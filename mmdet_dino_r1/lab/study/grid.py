"""What a study trains and compares: variants x seeds, read from a grid file.

A grid file is an mmengine config (``configs/studies/*.py``) that sets

    name         of the study, with its version: results of two versions are never mixed
    common       options that every run gets; options are those of ``--cfg-options``: dotted keys
    variants     name -> dict(config=..., title=..., options={...}): one way to train
    comparisons  [dict(title=..., baseline=variant, variants=[...], seeds=5)], first things first;
                 each variant is in one at least
    evaluations  name -> options of a test: split and prompts; the first part of the name, up to
                 '/', is the split
    primary      names of the evaluations to compare by
    diagnostics  names of the evaluations after which the queries are looked at
    shapes       optional: folder -> dict(checksums=..., difficulty='hard', image_size=96, ...),
                 sets that are drawn if they are not there

Words: variant = one setting; run = a variant with one seed; options = changes of a config.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path

from mmengine.config import Config

from ...config.loading import load_config
from ...testing.shapes import ShapesConfig
from ...testing.shapes_drawing import DIFFICULTIES
from ...utils.near_names import near_names

_LIST = (list, tuple)
# Types of the keys of each dict: those it needs, and the others.
_GRID = (
    dict(name=str, variants=dict, comparisons=_LIST, evaluations=dict, primary=_LIST),
    dict(common=dict, diagnostics=_LIST, shapes=dict),
)
_VARIANT = dict(config=str), dict(title=str, options=dict)
_COMPARISON = (
    dict(title=str, baseline=str, variants=_LIST, seeds=int),
    dict(axis=(dict, type(None))),
)
_AXIS = dict(label=str, values=dict), dict(log=bool)
_SETTINGS = {setting.name: object for setting in fields(ShapesConfig)} | dict(difficulty=str)
_SHAPES = {}, dict(checksums=dict, **_SETTINGS)
_CHECKSUMS = {}, dict(annotations=str, pixels=str)
# before version 0.7; read until 0.8
_RENAMED = dict(cells='variants', questions='comparisons', dynamics='diagnostics')


@dataclass(frozen=True)
class Variant:
    """One setting: a config and changes of it, by dotted key."""

    name: str
    title: str
    config: str
    options: Mapping


@dataclass(frozen=True)
class Comparison:
    """Variants to compare with a baseline, over the seeds 0, 1, ... up to a number."""

    title: str
    baseline: str
    variants: Sequence[str]
    seeds: int
    axis: Mapping | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All variants, the baseline first."""
        return tuple(dict.fromkeys((self.baseline, *self.variants)))


@dataclass(frozen=True)
class Run:
    """A variant with one seed, which is that of the training and of its tests' exemplars."""

    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f'{self.variant.name}, seed {self.seed}'

    def folder(self, out: Path) -> Path:
        """Where the run's files lie below the folder ``out`` of the study."""
        return out / self.variant.name / f'seed_{self.seed}'


@dataclass(frozen=True)
class Grid:
    """A whole study, field by field as the head of this file tells."""

    name: str
    variants: Mapping[str, Variant]
    comparisons: Sequence[Comparison]
    evaluations: Mapping[str, Mapping]
    primary: Sequence[str]
    common: Mapping = field(default_factory=dict)
    diagnostics: Sequence[str] = ()
    shapes: Mapping[str, Mapping] = field(default_factory=dict)

    def runs(
        self, variants: Sequence[str] | None = None, seeds: int | None = None
    ) -> Iterator[Run]:
        """All runs, or those of some variants and so many seeds: comparison by comparison."""
        asked = {
            (name, seed): None
            for comparison in self.comparisons
            for seed in range(min(comparison.seeds, seeds or comparison.seeds))
            for name in comparison.names
            if variants is None or name in variants
        }
        return (Run(self.variants[name], seed) for name, seed in asked)


def load_grid(path: str | Path) -> Grid:
    """Read a grid file, by path or by the name of a shipped one; ValueError: it has a mistake."""
    try:
        content = load_config(path).to_dict()
    except OSError:
        raise
    except Exception as error:  # a grid file is code: anything may happen
        raise ValueError(
            f'{path} cannot be read: {type(error).__name__}: {error}. Mend the file.'
        ) from error
    content = _with_new_names(path, content)
    _check_top(path, content)
    variants = {}
    for name, entry in content['variants'].items():
        where = f"{path}: variants['{name}']"
        if not re.fullmatch(r'[\w.+-]+', name):
            raise ValueError(f'{where}: the name is one of a folder: letters, digits, _ . + -')
        check_keys(where, entry, _VARIANT)
        variants[name] = Variant(name, **{'title': name, 'options': {}, **entry})
    for index, entry in enumerate(content['comparisons']):
        _check_comparison(f'{path}: comparisons[{index}]', entry)
    for folder, settings in content.get('shapes', {}).items():
        _check_shapes(f"{path}: shapes['{folder}']", settings)
    known = {key: content[key] for key in (*_GRID[0], *_GRID[1]) if key in content}
    comparisons = [Comparison(**entry) for entry in content['comparisons']]
    grid = Grid(**known | dict(variants=variants, comparisons=comparisons))
    _check_names(path, grid)
    return grid


def _with_new_names(path: str | Path, content: dict) -> dict:
    """The content with the names of this version, and a word about the old ones."""
    old = {key: new for key, new in _RENAMED.items() if key in content and new not in content}
    if not old:
        return content
    told = ', '.join(f'{key} -> {new}' for key, new in old.items())
    print(f'study: {path} has names that end with 0.8; rename {told}.', file=sys.stderr)
    content = {old.get(key, key): value for key, value in content.items()}
    content['comparisons'] = [
        {_RENAMED.get(key, key): value for key, value in entry.items()}
        for entry in content.get('comparisons', ())
    ]
    return content


def _check_top(path: str | Path, content: Mapping) -> None:
    """Other names than a grid's are the file's own business, unless one looks like a slip."""
    needed, optional = _GRID
    others = [key for key in content if key not in needed | optional]
    for key, kind in (needed | optional).items():
        if key in content:
            check_type(f'{path}: {key}', content[key], kind)
        elif near := near_names(key, others, n=1, cutoff=0.8):
            raise ValueError(f'{path} sets {near[0]} and no {key}: rename it, to {key} if meant.')
    if missing := [key for key in needed if not content.get(key)]:
        raise ValueError(f'{path} is no grid of a study: it does not set {", ".join(missing)}.')
    for name, entry in content['evaluations'].items():
        check_type(f"{path}: evaluations['{name}']", entry, dict)


def _check_comparison(where: str, entry: object) -> None:
    check_keys(where, entry, _COMPARISON)
    if entry['seeds'] < 1:
        raise ValueError(f'{where}: seeds is {entry["seeds"]}, not a number of at least 1.')
    if axis := entry.get('axis'):
        check_keys(f'{where}, axis', axis, _AXIS)
        if unknown := sorted(axis['values'].keys() - {entry['baseline'], *entry['variants']}):
            told = ', '.join(unknown)
            raise ValueError(f'{where}: axis has values for {told}, which it does not compare.')
        # the baseline is drawn as a line and needs no place
        lowest = min((axis['values'] | {entry['baseline']: inf}).values())
        if axis.get('log') and lowest <= 0:
            raise ValueError(f'{where}: a logarithmic axis has no place for {lowest:g}.')


def _check_names(path: str | Path, grid: Grid) -> None:
    """Every name that is used exists, and every variant is used."""
    compared = {name for comparison in grid.comparisons for name in comparison.names}
    for what, names, known in (
        ('comparisons name the variants', compared, grid.variants),
        ('primary names the evaluations', grid.primary, grid.evaluations),
        ('diagnostics names the evaluations', grid.diagnostics, grid.evaluations),
    ):
        if unknown := ', '.join(sorted(set(names) - known.keys())):
            there = ', '.join(known)
            raise ValueError(f'{path}: {what} {unknown}, which it does not set. It has: {there}.')
    if idle := [name for name in grid.variants if name not in compared]:
        raise ValueError(
            f'{path}: no comparison names the variants {", ".join(idle)}, so nothing says with how '
            'many seeds to run them. Put them into a comparison or leave them out.'
        )


def _check_shapes(where: str, settings: object) -> None:
    check_keys(where, settings, _SHAPES)
    if (difficulty := settings.get('difficulty', 'standard')) not in DIFFICULTIES:
        known = ', '.join(DIFFICULTIES)
        raise ValueError(f'{where}: difficulty is {difficulty!r}, not one of {known}.')
    check_keys(f'{where}, checksums', settings.get('checksums', {}), _CHECKSUMS)


def check_keys(where: str, entry: object, table: tuple[dict, dict]) -> None:
    """Refuse, with a ValueError, what is no dict with a table's keys, needed and other."""
    check_type(where, entry, dict)
    types = table[0] | table[1]
    wrong = [f'lacks {key}' for key in table[0] if key not in entry]
    wrong += [f'has {key}' for key in entry if key not in types]
    if wrong:
        raise ValueError(f'{where} {" and ".join(wrong)}; its keys are {", ".join(types)}.')
    for key, value in entry.items():
        check_type(f'{where}, {key}', value, types[key])


def check_type(where: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Refuse a value of another type with a ValueError."""
    if not isinstance(value, kind):
        name = (kind[0] if isinstance(kind, tuple) else kind).__name__
        raise ValueError(f'{where} is {value!r}, not a {name}.')


def training_config(grid: Grid, run: Run, out: Path) -> Config:
    """The config of the training of a run, with its folder below that of the study."""
    variant = run.variant
    options = {**grid.common, **variant.options, 'randomness.seed': run.seed}
    cfg = load_config(variant.config)
    return _changed(cfg, options, run.folder(out), f'the variant {variant.name}')


def evaluation_config(cfg: Config, grid: Grid, name: str, seed: int) -> Config:
    """The config of one test of a trained run, from that of its training.

    The exemplars are drawn by the run's seed, so intervals over seeds hold their luck too, and all
    variants of a seed get the same ones.
    """
    options = {**grid.evaluations[name], 'default_hooks.prompt_bank.bank.seed': seed}
    work_dir = Path(cfg.work_dir) / 'tests' / name.replace('/', '_')
    return _changed(cfg, options, work_dir, f'the evaluation {name}')


def split_of(evaluation: str) -> str:
    """'novel/g16' -> 'novel'."""
    return evaluation.partition('/')[0]


def fingerprint(cfg: Config) -> str:
    """16 hexadecimal digits that change with anything that a config says but its folder."""
    content = {key: value for key, value in cfg.to_dict().items() if key != 'work_dir'}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(cfg: Config, options: Mapping, work_dir: Path, what: str) -> Config:
    """A changed copy, which a runner writes down unformatted: that takes a second, many times."""
    cfg = Config(cfg.to_dict(), filename=cfg.filename, format_python_code=False)
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(f'{what}: its options do not fit the config: {error}') from error
    cfg.work_dir = str(work_dir)
    return cfg
