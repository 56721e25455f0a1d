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
from dataclasses import dataclass, fields
from pathlib import Path

from mmengine.config import Config

from ...config.loading import load_config
from ...testing.shapes import ShapesConfig
from ...testing.shapes_drawing import DIFFICULTIES
from ...utils.near_names import near_names

_LIST = (list, tuple)
_TYPES = dict(
    name=str,
    variants=dict,
    comparisons=_LIST,
    evaluations=dict,
    primary=_LIST,
    common=dict,
    diagnostics=_LIST,
    shapes=dict,
)
_NEEDED = ('name', 'variants', 'comparisons', 'evaluations', 'primary')
# before version 0.6; read until 0.7
_RENAMED = dict(cells='variants', questions='comparisons', dynamics='diagnostics')


@dataclass(frozen=True)
class Variant:
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
class Comparison:
    """Variants to compare with a baseline.

    Args:
        title: what is asked.
        baseline: name of the variant that differences are taken to.
        variants: names of the others.
        seeds: so many, 0, 1, ...
        axis: optional ``dict(label=..., values={variant: number}, log=bool)``: the number in which
            the variants differ, for a plot.
    """

    title: str
    baseline: str
    variants: tuple[str, ...]
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
    """A whole study, field by field as the head of this file tells.

    Args:
        name: of the study.
        variants: by name.
        comparisons: first things first.
        evaluations: options of each test, by name.
        primary: names of evaluations.
        common: options of every run.
        diagnostics: names of evaluations.
        shapes: settings of each set, by folder.
    """

    name: str
    variants: Mapping[str, Variant]
    comparisons: Sequence[Comparison]
    evaluations: Mapping[str, Mapping]
    primary: Sequence[str]
    common: Mapping
    diagnostics: Sequence[str]
    shapes: Mapping[str, Mapping]

    def runs(
        self, variants: Sequence[str] | None = None, seeds: int | None = None
    ) -> Iterator[Run]:
        """All runs, each once: comparison by comparison, and in each seed by seed.

        Args:
            variants: only these.
            seeds: at most so many of each variant.
        """
        given = set()
        for comparison in self.comparisons:
            for seed in range(min(comparison.seeds, seeds or comparison.seeds)):
                for name in comparison.names:
                    if (name, seed) not in given and (variants is None or name in variants):
                        given.add((name, seed))
                        yield Run(self.variants[name], seed)


def load_grid(path: str | Path) -> Grid:
    """Read a grid file.

    Args:
        path: of the file, or the name of a shipped one (``studies/grqo_shapes.py``).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, a key is missing or unknown, or a name is used that nothing
            has.
    """
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
    grid = Grid(
        name=content['name'],
        variants={
            name: _read_variant(f"{path}: variants['{name}']", name, entry)
            for name, entry in content['variants'].items()
        },
        comparisons=[
            _read_comparison(f'{path}: comparisons[{index}]', entry)
            for index, entry in enumerate(content['comparisons'])
        ],
        evaluations=content['evaluations'],
        primary=content['primary'],
        common=content.get('common', {}),
        diagnostics=content.get('diagnostics', ()),
        shapes=content.get('shapes', {}),
    )
    _check_names(path, grid)
    for folder, settings in grid.shapes.items():
        _check_shapes(f"{path}: shapes['{folder}']", settings)
    return grid


# ------------------------------------------------------------------ checks
def _with_new_names(path: str | Path, content: dict) -> dict:
    """The content with the names of this version, and a word about the old ones."""
    old = {key: new for key, new in _RENAMED.items() if key in content and new not in content}
    if not old:
        return content
    told = ', '.join(f'{key} -> {new}' for key, new in old.items())
    print(f'study: {path} has names that end with 0.7; rename {told}.', file=sys.stderr)
    content = {old.get(key, key): value for key, value in content.items()}
    if 'questions' in old:
        content['comparisons'] = [
            {_RENAMED.get(key, key): value for key, value in entry.items()}
            for entry in content['comparisons']
        ]
    return content


def _check_top(path: str | Path, content: Mapping) -> None:
    """Other names than a grid's are the file's own business, unless one looks like a slip."""
    others = [key for key in content if key not in _TYPES]
    for key, kind in _TYPES.items():
        if key in content:
            _check_type(f'{path}: {key}', content[key], kind)
        elif near := near_names(key, others, n=1, cutoff=0.8):
            raise ValueError(f'{path} sets {near[0]} and no {key}: rename it, to {key} if meant.')
    if missing := [key for key in _NEEDED if not content.get(key)]:
        raise ValueError(f'{path} is no grid of a study: it does not set {", ".join(missing)}.')
    for key in ('evaluations', 'shapes'):
        for name, entry in content.get(key, {}).items():
            _check_type(f"{path}: {key}['{name}']", entry, dict)


def _read_variant(where: str, name: str, entry: object) -> Variant:
    if not re.fullmatch(r'[\w.+-]+', name):
        raise ValueError(f'{where}: the name is one of a folder: letters, digits, "_", ".", "-".')
    _check_keys(where, entry, ('config',), ('title', 'options'))
    _check_type(f'{where}, options', entry.get('options', {}), dict)
    return Variant(name, entry.get('title', name), entry['config'], entry.get('options', {}))


def _read_comparison(where: str, entry: object) -> Comparison:
    _check_keys(where, entry, ('title', 'baseline', 'variants', 'seeds'), ('axis',))
    _check_type(f'{where}, variants', entry['variants'], _LIST)
    seeds = entry['seeds']
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ValueError(f'{where}: seeds is {seeds!r}, not a number of at least 1.')
    comparison = Comparison(**dict(entry, variants=tuple(entry['variants'])))
    if axis := comparison.axis:
        _check_keys(f'{where}, axis', axis, ('label', 'values'), ('log',))
        _check_type(f'{where}, axis, values', axis['values'], dict)
        if unknown := axis['values'].keys() - set(comparison.names):
            raise ValueError(
                f'{where}: axis has values for {", ".join(sorted(unknown))}, which it does not '
                'compare.'
            )
    return comparison


def _check_names(path: str | Path, grid: Grid) -> None:
    """Every name that is used exists, and every variant is used."""
    compared = {name for comparison in grid.comparisons for name in comparison.names}
    for what, names, known in (
        ('comparisons name the variants', compared, grid.variants),
        ('primary names the evaluations', grid.primary, grid.evaluations),
        ('diagnostics names the evaluations', grid.diagnostics, grid.evaluations),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(
                f'{path}: {what} {", ".join(unknown)}, which it does not set. It has: '
                f'{", ".join(known)}.'
            )
    if idle := [name for name in grid.variants if name not in compared]:
        raise ValueError(
            f'{path}: no comparison names the variants {", ".join(idle)}, so nothing says with how '
            'many seeds to run them. Put them into a comparison or leave them out.'
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
    """The config of the training of a run of a grid, with its folder below ``out``.

    Raises:
        FileNotFoundError: the variant's config does not exist.
        ValueError: the options do not fit the config.
    """
    variant = run.variant
    cfg = _copy(load_config(variant.config))
    options = {**grid.common, **variant.options, 'randomness.seed': run.seed}
    _merge(cfg, options, f'the variant {variant.name}')
    cfg.work_dir = str(run.folder(out))
    return cfg


def evaluation_config(cfg: Config, grid: Grid, name: str, seed: int) -> Config:
    """The config of one test of a trained run.

    The exemplars are drawn by the run's seed, so intervals over seeds hold their luck too, and all
    variants of a seed get the same ones.

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


def split_of(evaluation: str) -> str:
    """'novel/g16' -> 'novel'."""
    return evaluation.partition('/')[0]


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
