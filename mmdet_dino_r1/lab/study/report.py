"""A study's results as numbers, and those as Markdown and JSON.

Figures of AP are points of 100, the share of the gradient is in per cent, everything else is as it
was measured. Names: a *summary* is dict(mean, std, n, values) over seeds, ``values`` by seed; a
*difference* is paired with the baseline of its question: dict(mean, low, high, std, n, seeds,
values, verdict). What was not measured is None.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from math import isnan
from statistics import median

from .grid import Grid, Question
from .results import RunResult, StudyResults
from .statistics import CONFIDENCE, paired_difference, summarise, verdict

NOTHING = '–'
_METRICS = ('AP', 'AP50')
_MISSING = '**missing**'
_PERCENT = f'{100 * CONFIDENCE:g} %'
# of those that GRQO logs, what goes into the table, and what it is called there
_TRAINING = {
    'grqo_grad_share': "GRQO's share of the gradient, %",
    'grqo_grad_cosine': 'cosine with the other gradient',
    'grqo_kl': 'KL',
    'grqo_reward_mean': 'reward',
    'grqo_reward_std': 'spread of the reward',
}
_SCALE = {'grqo_grad_share': 100.0}
_COUNTS = 'num_'  # figures of the dynamics that say what was looked at
_POINTS, _LOGGED, _LOOKED_AT = '.2f', '.3g', '.3f'

Runs = Mapping[int, RunResult]


# -------------------------------------------------------------------- numbers
def build_report(grid: Grid, results: StudyResults) -> dict:
    """All numbers of a study.

    Args:
        grid: of its cells, questions and evaluations.
        results: of its runs; any of them may be missing.

    Returns:
        ``name``, ``confidence``, ``units``, ``primary``, ``evaluations``, ``seeds``, ``steps``,
        ``provenance`` (number of runs by what they ran on), ``missing`` (cells, runs and
        evaluations without results), ``ignored``, ``cells`` by name and ``questions``.
    """
    runs = {name: results.runs.get(name, {}) for name in grid.cells}
    finished = [run for of in runs.values() for run in of.values()]
    return dict(
        name=grid.name,
        confidence=CONFIDENCE,
        units={**dict.fromkeys(_METRICS, 'points of 100'), 'grqo_grad_share': '%'},
        primary=list(grid.primary),
        evaluations=list(grid.evaluations),
        seeds=sorted({run.seed for run in finished}),
        steps=sorted({run.steps for run in finished}),
        provenance=_provenance(finished),
        missing=_missing(grid, runs),
        ignored=list(results.ignored),
        cells={
            name: _cell(cell.title, runs[name], grid.evaluations)
            for name, cell in grid.cells.items()
        },
        questions=[_question(question, runs, grid.primary) for question in grid.questions],
    )


def to_json(report: dict) -> str:
    """The same numbers as JSON; what is not a number is null.

    Args:
        report: of :func:`build_report`.
    """
    return json.dumps(_without_nan(report), indent=1, ensure_ascii=False) + '\n'


def _provenance(runs: Sequence[RunResult]) -> dict[str, dict[str, int]]:
    """By kind and value, how many runs say so."""
    told = [{'device': run.device, **dict(_flat('data', run.data)), **run.versions} for run in runs]
    kinds = dict.fromkeys(kind for of in told for kind in of)
    return {kind: dict(Counter(of.get(kind, 'not told') for of in told)) for kind in kinds}


def _flat(name: str, told: object) -> Iterator[tuple[str, str]]:
    """'data, data/shapes, pixels' and the value, of data, a folder of them and its checksum."""
    if isinstance(told, Mapping):
        for key, inner in told.items():
            yield from _flat(f'{name}, {key}', inner)
    else:
        yield name, str(told)


def _missing(grid: Grid, runs: Mapping[str, Runs]) -> dict:
    """What the grid asks for and is not there: cells, seeds of cells, evaluations of runs."""
    seeds: dict[str, set[int]] = {name: set() for name in grid.cells}
    for question in grid.questions:
        for name in (question.baseline, *question.cells):
            seeds[name] |= set(range(question.seeds))
    evaluations = {
        f'{name}/seed_{seed}': lacking
        for name, of in runs.items()
        for seed, run in of.items()
        if (lacking := [one for one in grid.evaluations if one not in run.metrics])
    }
    return dict(
        cells=[name for name, of in runs.items() if not of],
        runs={
            name: sorted(asked - set(runs[name]))
            for name, asked in seeds.items()
            if runs[name] and asked - set(runs[name])
        },
        evaluations=evaluations,
    )


def _cell(title: str, runs: Runs, evaluations: Sequence[str]) -> dict:
    return dict(
        title=title,
        seeds=list(runs),
        steps=sorted({run.steps for run in runs.values()}),
        minutes=median(run.train_seconds for run in runs.values()) / 60 if runs else None,
        evaluations={
            evaluation: {metric: _summary(_points(runs, evaluation, metric)) for metric in _METRICS}
            for evaluation in evaluations
        },
        training={
            name: _summary(_training_values(runs, name))
            for name in sorted({name for run in runs.values() for name in run.training})
        },
    )


def _question(question: Question, runs: Mapping[str, Runs], primary: Sequence[str]) -> dict:
    names = list(dict.fromkeys((question.baseline, *question.cells)))
    figures = _figures(runs[name] for name in names)
    cells = {}
    for name in names:
        of = runs[name]
        base = {} if name == question.baseline else runs[question.baseline]
        cells[name] = dict(
            evaluations={
                one: _compared(_points(of, one, 'AP'), _points(base, one, 'AP')) for one in primary
            },
            dynamics={
                split: {
                    one: _compared(_dynamics(of, split, one), _dynamics(base, split, one))
                    for one in told
                }
                for split, told in figures.items()
            },
        )
    answer = dict(title=question.title, baseline=question.baseline, cells=cells)
    return answer | (dict(axis=dict(question.axis)) if question.axis else {})


def _figures(cells: Iterable[Runs]) -> dict[str, list[str]]:
    """Figures of the dynamics by split, of all runs of all cells."""
    found: dict[str, dict[str, None]] = {}
    for runs in cells:
        for run in runs.values():
            for split, figures in run.dynamics.items():
                found.setdefault(split, {}).update(dict.fromkeys(figures))
    return {split: list(figures) for split, figures in found.items()}


def _points(runs: Runs, evaluation: str, metric: str) -> dict[int, float]:
    """AP or AP50 in points by seed, of the runs that have it."""
    found = {seed: run.metrics.get(evaluation, {}).get(metric) for seed, run in runs.items()}
    return {seed: 100 * value for seed, value in _measured(found).items()}


def _training_values(runs: Runs, name: str) -> dict[int, float]:
    found = _measured({seed: run.training.get(name) for seed, run in runs.items()})
    return {seed: value * _SCALE.get(name, 1.0) for seed, value in found.items()}


def _dynamics(runs: Runs, split: str, figure: str) -> dict[int, float]:
    return _measured({seed: run.dynamics.get(split, {}).get(figure) for seed, run in runs.items()})


def _measured(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: v for seed, v in values.items() if v is not None and not isnan(v)}


def _compared(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict:
    """Summary, and difference; None for the baseline itself, and where no seed is in common."""
    difference = None
    if values.keys() & baseline.keys():
        found = paired_difference(values, baseline)
        difference = asdict(found) | dict(
            seeds=list(found.seeds),
            values=[values[seed] - baseline[seed] for seed in found.seeds],
            verdict=verdict(found),
        )
    return dict(summary=_summary(values), difference=difference)


def _summary(values: Mapping[int, float]) -> dict | None:
    if not values:
        return None
    return asdict(summarise(values.values())) | dict(values=dict(values))


def _without_nan(value):
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and isnan(value) else value


# ----------------------------------------------------------------------- text
def to_markdown(report: dict) -> str:
    """The report as text.

    Args:
        report: of :func:`build_report`.
    """
    parts = [f'# {report["name"]}', _header(report), _how_to_read(report)]
    for question in report['questions']:
        parts += [f'## {question["title"]}', _question_table(report, question)]
    parts.append('## All evaluations')
    for metric in _METRICS:
        parts += [f'### {metric}', _evaluation_table(report, metric)]
    parts += ['## Training', _training_table(report)]
    for question in report['questions']:
        if figures := _dynamics_table(report, question):
            parts += [f'## What the queries do: {question["title"]}', figures]
    return '\n\n'.join(parts) + '\n'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: of the columns.
        rows: of cells.
    """
    lines = [[cell.replace('|', r'\|') for cell in line] for line in (head, *rows)]
    lines.insert(1, ['---'] * len(head))
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _header(report: dict) -> str:
    told = {'seeds': _listed(report['seeds']), 'steps': _listed(report['steps'])}
    for kind, values in report['provenance'].items():
        told[kind] = next(iter(values))
        if len(values) > 1:
            told[kind] = '; '.join(
                f'{value} ({runs} run{"s" * (runs > 1)})' for value, runs in values.items()
            )
    lines = [f'- {kind}: {value}' for kind, value in told.items()]
    mixed = [kind for kind, values in report['provenance'].items() if len(values) > 1]
    if mixed:
        lines.append(
            f'- **Not the same in all runs: {", ".join(mixed)}.** Differences between cells may '
            'come from there.'
        )
    missing, cells = report['missing'], report['cells']
    if missing['cells']:
        names = ', '.join(f'{cells[name]["title"]} (`{name}`)' for name in missing['cells'])
        lines.append(f'- **Missing, cells:** {names}.')
    if missing['runs']:
        names = '; '.join(f'`{name}` {_listed(of)}' for name, of in missing['runs'].items())
        lines.append(f'- **Missing, seeds:** {names}.')
    if missing['evaluations']:
        names = '; '.join(f'`{run}` {_listed(of)}' for run, of in missing['evaluations'].items())
        lines.append(f'- **Missing, evaluations:** {names}.')
    if report['ignored']:
        lines.append(f'- Left alone, of no cell of this grid: {_listed(report["ignored"])}.')
    return '\n'.join(lines)


def _how_to_read(report: dict) -> str:
    tested = {
        (name, question['baseline'], evaluation)  # once, though several questions may show it
        for question in report['questions']
        for name, cell in question['cells'].items()
        for evaluation, of in cell['evaluations'].items()
        if of['difference'] and of['difference']['n'] > 1
    }
    text = (
        'AP and AP50 of boxes in points of 100: mean ± standard deviation over seeds. A difference '
        f'is cell minus baseline at the same seed, with the {_PERCENT} interval of its mean '
        "(Student's t: the differences are taken to be about normal, the seeds to be independent); "
        '**higher** or **lower** stands where the interval excludes 0. Where it does not, the two '
        'are not told apart, which does not make them equal.'
    )
    if tested:
        chance = (1 - CONFIDENCE) * len(tested)
        text += (
            ' Nothing is corrected for the number of comparisons: if no cell differed from its '
            f'baseline, about {chance:.1f} of the {len(tested)} intervals of AP below would '
            'exclude 0 by chance, and as large a share of those of the queries.'
        )
    return text


def _question_table(report: dict, question: dict) -> str:
    head = ['', 'seeds', 'steps', 'minutes of training (median)']
    for evaluation in report['primary']:
        head += [f'{evaluation}, AP', f'to baseline [{_PERCENT}]']
    rows = []
    for name, compared in question['cells'].items():
        cell, is_baseline = report['cells'][name], name == question['baseline']
        row = [cell['title'] + ' (baseline)' * is_baseline, *_cost(cell)]
        for of in compared['evaluations'].values():
            row.append(_mean(of['summary'], _POINTS, len(cell['seeds'])))
            row.append(NOTHING if is_baseline else _difference(of, _POINTS, len(cell['seeds'])))
        rows.append(row)
    return table(head, rows)


def _evaluation_table(report: dict, metric: str) -> str:
    rows = []
    for cell in report['cells'].values():
        means = (
            _mean(cell['evaluations'][evaluation][metric], _POINTS, len(cell['seeds']))
            for evaluation in report['evaluations']
        )
        rows.append([cell['title'], _cost(cell)[0], *means])
    return table(['', 'seeds', *report['evaluations']], rows)


def _training_table(report: dict) -> str:
    rows = []
    for cell in report['cells'].values():
        means = (
            _mean(cell['training'].get(name), _LOGGED, len(cell['seeds'])) for name in _TRAINING
        )
        rows.append([cell['title'], _cost(cell)[0], *means])
    return table(['mean over the log', 'seeds', *_TRAINING.values()], rows)


def _dynamics_table(report: dict, question: dict) -> str:
    """All figures and cells, the splits side by side; empty where no run was looked at."""
    splits = question['cells'][question['baseline']]['dynamics']
    figures = dict.fromkeys(one for of in splits.values() for one in of)
    head = ['figure', '']
    for split in splits:
        head += [split, f'{split}, to baseline [{_PERCENT}]']
    rows = []
    for figure in figures:
        if figure.startswith(_COUNTS):
            continue
        for name, compared in question['cells'].items():
            cell, is_baseline = report['cells'][name], name == question['baseline']
            row = [figure, cell['title'] + ' (baseline)' * is_baseline]
            for split in splits:
                of = compared['dynamics'][split].get(figure, dict(summary=None, difference=None))
                row.append(_mean(of['summary'], _LOOKED_AT, len(cell['seeds'])))
                row.append(
                    NOTHING if is_baseline else _difference(of, _LOOKED_AT, len(cell['seeds']))
                )
            rows.append(row)
    return table(head, rows) if rows else ''


def _cost(cell: dict) -> list[str]:
    """Seeds, steps and minutes."""
    if not cell['seeds']:
        return [_MISSING, NOTHING, NOTHING]
    return [str(len(cell['seeds'])), _listed(cell['steps']), f'{cell["minutes"]:.1f}']


def _mean(summary: dict | None, form: str, runs: int) -> str:
    """'12.00 ± 1.00', with its number of seeds where that is not the cell's number of runs."""
    if summary is None:
        return NOTHING
    text = format(summary['mean'], form)
    if summary['n'] > 1:
        text += f' ± {summary["std"]:{form}}'
    return text + _of_fewer(summary['n'], runs)


def _difference(of: dict, form: str, runs: int) -> str:
    """'+2.00 [+1.00, +3.00] **higher**'."""
    told = of['difference']
    if told is None:
        return 'no seed in common' if of['summary'] else NOTHING
    if told['n'] == 1:
        return f'{told["mean"]:+{form}} (one seed, no interval)'
    text = f'{told["mean"]:+{form}} [{told["low"]:+{form}}, {told["high"]:+{form}}]'
    if told['verdict'] in ('higher', 'lower'):
        text += f' **{told["verdict"]}**'
    return text + _of_fewer(told['n'], runs)


def _of_fewer(n: int, runs: int) -> str:
    return f' (n = {n})' if n < runs else ''


def _listed(values: Iterable) -> str:
    return ', '.join(map(str, values)) or NOTHING
