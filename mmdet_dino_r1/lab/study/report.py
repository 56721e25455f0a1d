"""A study's results as numbers, and those as Markdown and JSON.

Figures of AP are points of 100, the share of the gradient is in per cent, everything else is as it
was measured. Names: a *summary* is dict(mean, std, n, values) over seeds, ``values`` by seed; a
*difference* is paired with the baseline of its comparison: dict(mean, low, high, std, n, seeds,
values, verdict). What was not measured is None.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import isnan
from statistics import median

from .grid import Comparison, Grid
from .results import METRICS, RunResult, StudyResults
from .statistics import CONFIDENCE, paired_difference, summarise, verdict

NOTHING = '–'
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
_COUNTS = 'num_'  # figures of the diagnostics that say what was looked at
_POINTS, _LOGGED, _DIAGNOSED = '.2f', '.3g', '.3f'

Runs = Mapping[int, RunResult]


# -------------------------------------------------------------------- numbers
def build_report(grid: Grid, results: StudyResults) -> dict:
    """All numbers of a study.

    Args:
        grid: of its variants, comparisons and evaluations.
        results: of its runs; any of them may be missing.

    Returns:
        ``name``, ``confidence``, ``units``, ``primary``, ``evaluations``, ``seeds``, ``steps``,
        ``provenance`` (number of runs by what they ran on), ``missing`` (variants, runs and
        evaluations without results), ``ignored``, ``variants`` by name and ``comparisons``.
    """
    runs = {name: results.runs.get(name, {}) for name in grid.variants}
    finished = [run for of in runs.values() for run in of.values()]
    return dict(
        name=grid.name,
        confidence=CONFIDENCE,
        units={**dict.fromkeys(METRICS, 'points of 100'), 'grqo_grad_share': '%'},
        primary=list(grid.primary),
        evaluations=list(grid.evaluations),
        seeds=sorted({run.seed for run in finished}),
        steps=sorted({run.steps for run in finished}),
        provenance=_provenance(finished),
        missing=_missing(grid, runs),
        ignored=list(results.ignored),
        variants={
            name: _variant(variant.title, runs[name], grid.evaluations)
            for name, variant in grid.variants.items()
        },
        comparisons=[_comparison(one, runs, grid.primary) for one in grid.comparisons],
    )


def to_json(report: dict) -> str:
    """The numbers of :func:`build_report` as JSON; what is not a number is null."""
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
    """What the grid asks for and is not there: variants, seeds of them, evaluations of runs."""
    seeds = {name: [run.seed for run in grid.runs([name])] for name in grid.variants}
    lacking = {name: sorted(set(asked) - set(runs[name])) for name, asked in seeds.items()}
    evaluations = {
        f'{name}/seed_{seed}': [one for one in grid.evaluations if one not in run.metrics]
        for name, of in runs.items()
        for seed, run in of.items()
    }
    return dict(
        variants=[name for name, of in runs.items() if not of],
        runs={name: of for name, of in lacking.items() if of and runs[name]},
        evaluations={run: of for run, of in evaluations.items() if of},
    )


def _variant(title: str, runs: Runs, evaluations: Sequence[str]) -> dict:
    return dict(
        title=title,
        seeds=list(runs),
        steps=sorted({run.steps for run in runs.values()}),
        minutes=median(run.train_seconds for run in runs.values()) / 60 if runs else None,
        evaluations={
            evaluation: {metric: _summary(_points(runs, evaluation, metric)) for metric in METRICS}
            for evaluation in evaluations
        },
        training={
            name: _summary(
                _by_seed(runs, lambda run, name=name: run.training.get(name), _SCALE.get(name, 1.0))
            )
            for name in sorted({name for run in runs.values() for name in run.training})
        },
    )


def _comparison(comparison: Comparison, runs: Mapping[str, Runs], primary: Sequence[str]) -> dict:
    figures: dict[str, dict[str, None]] = {}  # of the diagnostics, by split
    for name in comparison.names:
        for run in runs[name].values():
            for split, of in run.diagnostics.items():
                figures.setdefault(split, {}).update(dict.fromkeys(of))
    variants = {}
    for name in comparison.names:
        of = runs[name]
        base = {} if name == comparison.baseline else runs[comparison.baseline]
        variants[name] = dict(
            evaluations={
                one: _compared(_points(of, one, 'AP'), _points(base, one, 'AP')) for one in primary
            },
            diagnostics={
                split: {
                    one: _compared(_diagnosed(of, split, one), _diagnosed(base, split, one))
                    for one in told
                }
                for split, told in figures.items()
            },
        )
    answer = dict(title=comparison.title, baseline=comparison.baseline, variants=variants)
    return answer | (dict(axis=dict(comparison.axis)) if comparison.axis else {})


def _points(runs: Runs, evaluation: str, metric: str) -> dict[int, float]:
    """AP or AP50 in points by seed, of the runs that have it."""
    return _by_seed(runs, lambda run: run.metrics.get(evaluation, {}).get(metric), 100)


def _diagnosed(runs: Runs, split: str, figure: str) -> dict[int, float]:
    return _by_seed(runs, lambda run: run.diagnostics.get(split, {}).get(figure))


def _by_seed(
    runs: Runs, value_of: Callable[[RunResult], float | None], scale: float = 1.0
) -> dict[int, float]:
    values = {seed: value_of(run) for seed, run in runs.items()}
    return {seed: scale * v for seed, v in values.items() if v is not None and not isnan(v)}


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
    """The numbers of :func:`build_report` as text."""
    parts = [f'# {report["name"]}', _header(report), _how_to_read(report)]
    for comparison in report['comparisons']:
        parts += [f'## {comparison["title"]}', _comparison_table(report, comparison)]
    parts.append('## All evaluations')
    for metric in METRICS:
        means = partial(_evaluation_means, report['evaluations'], metric)
        head = ['', 'seeds', *report['evaluations']]
        parts += [f'### {metric}', table(head, _variant_rows(report, means))]
    head = ['mean over the log', 'seeds', *_TRAINING.values()]
    parts += ['## Training', table(head, _variant_rows(report, _training_means))]
    for comparison in report['comparisons']:
        if figures := _diagnostics_table(report, comparison):
            parts += [f'## What the queries do: {comparison["title"]}', figures]
    return '\n\n'.join(parts) + '\n'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, from the texts of its columns' heads and of its rows."""
    lines = [[text.replace('|', r'\|') for text in line] for line in (head, *rows)]
    lines.insert(1, ['---'] * len(head))
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _header(report: dict) -> str:
    lines = [f'- {kind}: {_listed(report[kind])}' for kind in ('seeds', 'steps')]
    mixed = [kind for kind, values in report['provenance'].items() if len(values) > 1]
    for kind, values in report['provenance'].items():
        told = [
            f'{value} ({runs} run{"s" * (runs > 1)})' if kind in mixed else value
            for value, runs in values.items()
        ]
        lines.append(f'- {kind}: {"; ".join(told)}')
    if mixed:
        lines.append(
            f'- **Not the same in all runs: {", ".join(mixed)}.** Differences between variants may '
            'come from there.'
        )
    missing = report['missing']
    titles = {name: of['title'] for name, of in report['variants'].items()}
    for what, told in (
        ('variants', ', '.join(f'{titles[name]} (`{name}`)' for name in missing['variants'])),
        ('seeds', '; '.join(f'`{name}` {_listed(of)}' for name, of in missing['runs'].items())),
        (
            'evaluations',
            '; '.join(f'`{run}` {_listed(of)}' for run, of in missing['evaluations'].items()),
        ),
    ):
        if told:
            lines.append(f'- **Missing, {what}:** {told}.')
    if report['ignored']:
        lines.append(f'- Left alone, of no variant of this grid: {_listed(report["ignored"])}.')
    return '\n'.join(lines)


def _how_to_read(report: dict) -> str:
    tested = {
        (name, comparison['baseline'], evaluation)  # once, though several may show it
        for comparison in report['comparisons']
        for name, variant in comparison['variants'].items()
        for evaluation, of in variant['evaluations'].items()
        if of['difference'] and of['difference']['n'] > 1
    }
    text = (
        'AP and AP50 of boxes in points of 100: mean ± standard deviation over seeds. A difference '
        f'is variant minus baseline at the same seed, with the {_PERCENT} interval of its mean '
        "(Student's t: the differences are taken to be about normal, the seeds to be independent); "
        '**higher** or **lower** stands where the interval excludes 0. Where it does not, the two '
        'are not told apart, which does not make them equal.'
    )
    if tested:
        chance = (1 - CONFIDENCE) * len(tested)
        text += (
            ' Nothing is corrected for the number of comparisons: if no variant differed from its '
            f'baseline, about {chance:.1f} of the {len(tested)} intervals of AP below would '
            'exclude 0 by chance, and as large a share of those of the queries.'
        )
    return text


def _comparison_table(report: dict, comparison: dict) -> str:
    head = ['', 'seeds', 'steps', 'minutes of training (median)']
    for evaluation in report['primary']:
        head += [f'{evaluation}, AP', f'to baseline [{_PERCENT}]']
    rows = []
    for name, compared in comparison['variants'].items():
        variant, is_baseline = report['variants'][name], name == comparison['baseline']
        row = [variant['title'] + ' (baseline)' * is_baseline, *_cost(variant)]
        for of in compared['evaluations'].values():
            row += _mean_and_difference(of, _POINTS, len(variant['seeds']), is_baseline)
        rows.append(row)
    return table(head, rows)


def _variant_rows(report: dict, means: Callable[[dict], list[str]]) -> list[list[str]]:
    """A row for each variant: title, seeds, means."""
    return [[of['title'], _cost(of)[0], *means(of)] for of in report['variants'].values()]


def _evaluation_means(evaluations: Sequence[str], metric: str, variant: dict) -> list[str]:
    told = [variant['evaluations'][evaluation][metric] for evaluation in evaluations]
    return [_mean(of, _POINTS, len(variant['seeds'])) for of in told]


def _training_means(variant: dict) -> list[str]:
    told = [variant['training'].get(name) for name in _TRAINING]
    return [_mean(of, _LOGGED, len(variant['seeds'])) for of in told]


def _diagnostics_table(report: dict, comparison: dict) -> str:
    """All figures and variants, the splits side by side; empty where no run was looked at."""
    splits = comparison['variants'][comparison['baseline']]['diagnostics']
    figures = dict.fromkeys(one for of in splits.values() for one in of)
    head = ['figure', '']
    for split in splits:
        head += [split, f'{split}, to baseline [{_PERCENT}]']
    rows = []
    for figure in figures:
        if figure.startswith(_COUNTS):
            continue
        for name, compared in comparison['variants'].items():
            variant, is_baseline = report['variants'][name], name == comparison['baseline']
            row = [figure, variant['title'] + ' (baseline)' * is_baseline]
            for split in splits:
                nothing = dict(summary=None, difference=None)
                of = compared['diagnostics'][split].get(figure, nothing)
                row += _mean_and_difference(of, _DIAGNOSED, len(variant['seeds']), is_baseline)
            rows.append(row)
    return table(head, rows) if rows else ''


def _cost(variant: dict) -> list[str]:
    """Seeds, steps and minutes."""
    if not variant['seeds']:
        return [_MISSING, NOTHING, NOTHING]
    return [str(len(variant['seeds'])), _listed(variant['steps']), f'{variant["minutes"]:.1f}']


def _mean_and_difference(of: dict, form: str, runs: int, is_baseline: bool) -> list[str]:
    """'12.00 ± 1.00' and '+2.00 [+1.00, +3.00] **higher**'."""
    mean, told = _mean(of['summary'], form, runs), of['difference']
    if is_baseline or (told is None and of['summary'] is None):
        return [mean, NOTHING]
    if told is None:
        return [mean, 'no seed in common']
    if told['n'] == 1:
        return [mean, f'{told["mean"]:+{form}} (one seed, no interval)']
    text = f'{told["mean"]:+{form}} [{told["low"]:+{form}}, {told["high"]:+{form}}]'
    if told['verdict'] in ('higher', 'lower'):
        text += f' **{told["verdict"]}**'
    return [mean, text + _of_fewer(told['n'], runs)]


def _mean(summary: dict | None, form: str, runs: int) -> str:
    """'12.00 ± 1.00', with its number of seeds where that is not the variant's number of runs."""
    if summary is None:
        return NOTHING
    text = format(summary['mean'], form)
    if summary['n'] > 1:
        text += f' ± {summary["std"]:{form}}'
    return text + _of_fewer(summary['n'], runs)


def _of_fewer(n: int, runs: int) -> str:
    return f' (n = {n})' if n < runs else ''


def _listed(values: Iterable) -> str:
    return ', '.join(map(str, values)) or NOTHING
