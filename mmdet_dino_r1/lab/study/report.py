"""A study's results as numbers, and those as Markdown.

Figures of AP are points of 100, the share of the gradient is in per cent, everything else is as it
was measured. What was not measured is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from math import isnan
from statistics import median

from ..markdown import NOTHING, markdown_table
from .grid import Comparison, Grid
from .results import METRICS
from .statistics import CONFIDENCE, paired_difference, summarise

_PERCENT = f'{100 * CONFIDENCE:g} %'
# of those that GRQO logs, what goes into the table, and what it is called there
_TRAINING = {
    'grqo_grad_share': "GRQO's share of the gradient, %",
    'grqo_grad_cosine': 'cosine with the other gradient',
    'grqo_kl': 'KL',
    'grqo_reward_mean': 'reward',
    'grqo_reward_std': 'spread of the reward',
}
_SCALE = {'grqo_grad_share': 100}
_COUNTS = 'num_'  # figures of the diagnostics that say what was looked at
_POINTS, _LOGGED, _DIAGNOSED = '.2f', '.3g', '.3f'

Runs = Mapping[int, dict]  # contents of ``result.json`` by seed


def build_report(grid: Grid, runs: Mapping[str, Runs], ignored: Sequence[str]) -> dict:
    """All numbers of a study, ready for JSON, from its runs by variant and seed; some may miss."""
    runs = {name: runs.get(name, {}) for name in grid.variants}
    finished = [run for of in runs.values() for run in of.values()]
    return dict(
        name=grid.name,
        confidence=CONFIDENCE,
        units={**dict.fromkeys(METRICS, 'points of 100'), 'grqo_grad_share': '%'},
        primary=list(grid.primary),
        evaluations=list(grid.evaluations),
        seeds=sorted({run['seed'] for run in finished}),
        steps=sorted({run['steps'] for run in finished}),
        provenance=_provenance(finished),
        missing=_missing(grid, runs),
        ignored=list(ignored),
        variants={
            name: _variant(variant.title, runs[name], grid.evaluations)
            for name, variant in grid.variants.items()
        },
        comparisons=[_comparison(one, runs, grid.primary) for one in grid.comparisons],
    )


def _provenance(runs: Sequence[dict]) -> dict[str, dict[str, int]]:
    """By kind and value, how many runs say so."""
    told = []
    for run in runs:
        told.append({'device': run['device']})
        for folder, of in run['data'].items():
            told[-1] |= {f'data, {folder}, {kind}': checksum for kind, checksum in of.items()}
        told[-1] |= run['versions']
    kinds = dict.fromkeys(kind for of in told for kind in of)
    return {kind: dict(Counter(of.get(kind, 'not told') for of in told)) for kind in kinds}


def _missing(grid: Grid, runs: Mapping[str, Runs]) -> dict:
    """What the grid asks for and is not there: variants, seeds of them, evaluations of runs."""
    seeds = {
        name: sorted({run.seed for run in grid.runs([name])} - of.keys())
        for name, of in runs.items()
    }
    evaluations = {
        f'{name}/seed_{seed}': [one for one in grid.evaluations if one not in run['metrics']]
        for name, of in runs.items()
        for seed, run in of.items()
    }
    return dict(
        variants=[name for name, of in runs.items() if not of],
        runs={name: lacking for name, lacking in seeds.items() if lacking and runs[name]},
        evaluations={run: lacking for run, lacking in evaluations.items() if lacking},
    )


def _variant(title: str, runs: Runs, evaluations: Iterable[str]) -> dict:
    logged = sorted({name for run in runs.values() for name in run['training']})
    return dict(
        title=title,
        seeds=list(runs),
        steps=sorted({run['steps'] for run in runs.values()}),
        minutes=median(run['train_seconds'] for run in runs.values()) / 60 if runs else None,
        evaluations={
            evaluation: {
                metric: summarise(_by_seed(runs, 'metrics', evaluation, metric, scale=100))
                for metric in METRICS
            }
            for evaluation in evaluations
        },
        training={
            name: summarise(_by_seed(runs, 'training', name, scale=_SCALE.get(name, 1)))
            for name in logged
        },
    )


def _comparison(comparison: Comparison, runs: Mapping[str, Runs], primary: Sequence[str]) -> dict:
    figures: dict[str, dict[str, None]] = {}  # of the diagnostics, by split
    for run in (run for name in comparison.names for run in runs[name].values()):
        for split, of in run['diagnostics'].items():
            figures.setdefault(split, {}).update(dict.fromkeys(of))

    def compared(name: str, *place: str, scale: float = 1) -> dict:
        of = {one: _by_seed(runs[one], *place, scale=scale) for one in (name, comparison.baseline)}
        base = {} if name == comparison.baseline else of[comparison.baseline]
        return dict(summary=summarise(of[name]), difference=paired_difference(of[name], base))

    variants = {
        name: dict(
            evaluations={one: compared(name, 'metrics', one, 'AP', scale=100) for one in primary},
            diagnostics={
                split: {figure: compared(name, 'diagnostics', split, figure) for figure in told}
                for split, told in figures.items()
            },
        )
        for name in comparison.names
    }
    answer = dict(title=comparison.title, baseline=comparison.baseline, variants=variants)
    return answer | (dict(axis=dict(comparison.axis)) if comparison.axis else {})


def _by_seed(runs: Runs, *keys: str, scale: float = 1) -> dict[int, float]:
    """The number that lies below keys in each run that has it."""
    found = {seed: _at(run, *keys) for seed, run in runs.items()}
    return {seed: scale * x for seed, x in found.items() if x is not None and not isnan(x)}


def _at(tree: Mapping, *keys: str) -> object:
    """What lies below keys, None where there is nothing."""
    return reduce(lambda of, key: (of or {}).get(key), keys, tree)


def to_markdown(report: dict) -> str:
    """The numbers of :func:`build_report` as text."""
    parts = [f'# {report["name"]}', _header(report), _how_to_read(report)]
    for comparison in report['comparisons']:
        parts += [f'## {comparison["title"]}', _comparison_table(report, comparison)]
    parts.append('## All evaluations')
    for metric in METRICS:
        columns = {one: ('evaluations', one, metric) for one in report['evaluations']}
        parts += [f'### {metric}', _means_table(report, '', columns, _POINTS)]
    columns = {title: ('training', name) for name, title in _TRAINING.items()}
    parts += ['## Training', _means_table(report, 'mean over the log', columns, _LOGGED)]
    for comparison in report['comparisons']:
        if figures := _diagnostics_table(report, comparison):
            parts += [f'## What the queries do: {comparison["title"]}', figures]
    return '\n\n'.join(parts) + '\n'


def _header(report: dict) -> str:
    lines = [f'- {kind}: {_listed(report[kind])}' for kind in ('seeds', 'steps')]
    mixed = [kind for kind, values in report['provenance'].items() if len(values) > 1]
    for kind, values in report['provenance'].items():
        counted = [f'{value} ({runs} run{"s" * (runs > 1)})' for value, runs in values.items()]
        lines.append(f'- {kind}: {"; ".join(counted if kind in mixed else values)}')
    if mixed:
        lines.append(
            f'- **Not the same in all runs: {", ".join(mixed)}.** Differences between variants may '
            'come from there.'
        )
    missing = report['missing']
    titles = {name: report['variants'][name]['title'] for name in missing['variants']}
    lacking = dict(variants=', '.join(f'{title} (`{name}`)' for name, title in titles.items()))
    for what, kind in (('seeds', 'runs'), ('evaluations', 'evaluations')):
        lacking[what] = '; '.join(f'`{of}` {_listed(some)}' for of, some in missing[kind].items())
    lines += [f'- **Missing, {what}:** {told}.' for what, told in lacking.items() if told]
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
        variant = report['variants'][name]
        cost = [_number_of_seeds(variant), _listed(variant['steps'])]
        cost.append(f'{variant["minutes"]:.1f}' if variant['seeds'] else NOTHING)
        title, *cells = _cells(report, comparison, name, compared['evaluations'].values(), _POINTS)
        rows.append([title, *cost, *cells])
    return markdown_table(head, rows)


def _means_table(report: dict, corner: str, columns: Mapping[str, tuple], form: str) -> str:
    """A row for each variant, a column for each title and where its means lie."""
    rows = []
    for of in report['variants'].values():
        means = [_mean(_at(of, *keys), form, len(of['seeds'])) for keys in columns.values()]
        rows.append([of['title'], _number_of_seeds(of), *means])
    return markdown_table([corner, 'seeds', *columns], rows)


def _diagnostics_table(report: dict, comparison: dict) -> str:
    """All figures and variants, the splits side by side; empty where no run was looked at."""
    splits = comparison['variants'][comparison['baseline']]['diagnostics']
    figures = dict.fromkeys(one for of in splits.values() for one in of)
    head = ['figure', '']
    for split in splits:
        head += [split, f'{split}, to baseline [{_PERCENT}]']
    rows = []
    for figure in figures:
        for name, compared in comparison['variants'].items():
            told = [compared['diagnostics'][split].get(figure) for split in splits]
            rows.append([figure, *_cells(report, comparison, name, told, _DIAGNOSED)])
    rows = [row for row in rows if not row[0].startswith(_COUNTS)]
    return markdown_table(head, rows) if rows else ''


def _number_of_seeds(variant: dict) -> str:
    return str(len(variant['seeds'])) if variant['seeds'] else '**missing**'


def _cells(
    report: dict, comparison: dict, name: str, told: Iterable[dict | None], form: str
) -> list[str]:
    """Title of a variant, then of each '12.00 ± 1.00' and '+2.00 [+1.00, +3.00] **higher**'."""
    variant, is_baseline = report['variants'][name], name == comparison['baseline']
    runs = len(variant['seeds'])
    cells = [variant['title'] + ' (baseline)' * is_baseline]
    for of in told:
        summary, difference = (of['summary'], of['difference']) if of else (None, None)
        if difference is None:
            text = NOTHING if is_baseline or summary is None else 'no seed in common'
        elif difference['n'] == 1:
            text = f'{difference["mean"]:+{form}} (one seed, no interval)'
        else:
            ends = ', '.join(f'{difference[end]:+{form}}' for end in ('low', 'high'))
            text = f'{difference["mean"]:+{form}} [{ends}]'
            if difference['verdict'] in ('higher', 'lower'):
                text += f' **{difference["verdict"]}**'
            text += _of_fewer(difference['n'], runs)
        cells += [_mean(summary, form, runs), text]
    return cells


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
