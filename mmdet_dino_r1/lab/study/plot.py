"""Plots of a study: differences to a baseline, AP along a number, AP over exemplars per class.

AP is in points of 100. Blue is higher than the baseline, red lower, grey not told apart. A plot is
of a ``build_report`` and one of its comparisons: RGB, uint8 ``(height, width, 3)``, None if empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

import numpy as np

from ..figure import new_figure, rendered, run_colour
from .statistics import CONFIDENCE

_COLOURS = {'higher': '#0072b2', 'lower': '#d55e00', 'not told apart': '#555555'}
_SEED = dict(color='0.62', marker='o', markersize=3, linestyle='')
_BASELINE = dict(color='0.3', linewidth=1, linestyle='--')
_LINES = ('-', '--', ':')


def draw_report(report: dict) -> dict[str, np.ndarray]:
    """Every plot that there are results for, as ``comparison_<n>_{differences,axis,exemplars}``."""
    kinds = dict(differences=draw_differences, axis=draw_axis, exemplars=draw_exemplars)
    images = {
        f'comparison_{number}_{kind}': draw(report, comparison)
        for number, comparison in enumerate(report['comparisons'], start=1)
        for kind, draw in kinds.items()
    }
    return {name: image for name, image in images.items() if image is not None}


def draw_differences(report: dict, comparison: dict) -> np.ndarray | None:
    """A forest plot: a row for each variant, a panel for each primary evaluation.

    The baseline is at 0. An interval that is far wider than the differences of all seeds runs out
    of its panel, without a bar at that end.
    """
    others = [name for name in comparison['variants'] if name != comparison['baseline']]
    panels = {one: _differences(comparison, others, one) for one in report['primary']}
    if not any(any(rows) for rows in panels.values()):
        return None
    titles = [report['variants'][name]['title'] for name in others]
    baseline = report['variants'][comparison['baseline']]['title']

    def paint(axes, evaluation: str) -> None:
        axes.axvline(0, **_BASELINE)
        _estimates(axes, range(len(others)), panels[evaluation])
        axes.set(xlim=_limits(panels[evaluation]), ylim=(len(others) - 0.45, -0.55))
        is_first = evaluation == report['primary'][0]
        axes.set_yticks(range(len(others)), titles if is_first else [''] * len(others), fontsize=9)
        axes.tick_params(axis='y', length=0)
        axes.spines['left'].set_visible(False)
        _finish(axes, evaluation, fill(f'AP minus that of {baseline}, points', 48), grid='x')

    longest = max(map(len, titles))
    size = (0.075 * longest + 3.6 * len(panels) + 0.3, 0.34 * len(others) + 1.75)
    return _figure(comparison['title'], panels, paint, size, _key_of_differences())


def draw_axis(report: dict, comparison: dict) -> np.ndarray | None:
    """AP along the number that the comparison's ``axis`` gives its variants.

    The baseline is a dashed line, so its number, often 0, needs no place on a logarithmic axis.
    """
    axis, baseline = comparison.get('axis'), comparison['baseline']
    if not axis:
        return None
    by_number = {number: name for name, number in axis['values'].items() if name != baseline}
    numbers = sorted(by_number)
    panels = {}
    for evaluation in report['primary']:
        height = comparison['variants'][baseline]['evaluations'][evaluation]['summary']
        told = _differences(comparison, [by_number[number] for number in numbers], evaluation)
        if height and any(told):
            panels[evaluation] = (height['mean'], told)
    if not panels:
        return None

    def paint(axes, evaluation: str) -> None:
        height, told = panels[evaluation]
        if axis.get('log'):
            axes.set_xscale('log')
        axes.axhline(height, **_BASELINE)
        # every number has a place, with or without a result
        axes.plot(numbers, [height] * len(numbers), linestyle='')
        line = [(n, height + one['mean']) for n, one in zip(numbers, told, strict=True) if one]
        axes.plot(*zip(*line, strict=True), color='0.75', linewidth=1.2, zorder=1)
        _estimates(axes, numbers, told, height, upright=True)
        axes.set_xticks(numbers, [f'{number:g}' for number in numbers], fontsize=8)
        axes.set_xticks([], minor=True)
        axes.margins(x=0.08)
        _finish(axes, evaluation, axis['label'], 'AP, points', grid='y')

    key = _key_of_differences()
    key[report['variants'][baseline]['title']] = _BASELINE
    return _figure(comparison['title'], panels, paint, (4.4 * len(panels), 4.1), key)


def draw_exemplars(report: dict, comparison: dict) -> np.ndarray | None:
    """AP, with its standard deviation, over the N exemplars of evaluations ``<split>/g<N>``."""
    tests: dict[str, dict[int, str]] = {}
    for evaluation in report['evaluations']:
        if named := re.fullmatch(r'(.+)/g(\d+)', evaluation):
            tests.setdefault(named[1], {})[int(named[2])] = evaluation
    panels: dict[str, dict[str, np.ndarray]] = {}  # of numbers, means, standard deviations
    for split, by_number in tests.items():
        for variant in (report['variants'][name] for name in comparison['variants']):
            told = [(n, variant['evaluations'][by_number[n]]['AP']) for n in sorted(by_number)]
            curve = [(n, of['mean'], of['std'] or 0) for n, of in told if of]
            if len(curve) > 1:
                panels.setdefault(split, {})[variant['title']] = np.array(curve).T
    if not panels:
        return None
    shown = dict.fromkeys(title for curves in panels.values() for title in curves)
    looks = {
        title: dict(
            color=run_colour(place), linestyle=_LINES[place // 5 % len(_LINES)], marker='o', ms=4
        )
        for place, title in enumerate(shown)
    }

    def paint(axes, split: str) -> None:
        axes.set_xscale('log', base=2)
        for title, (counts, means, stds) in panels[split].items():
            axes.plot(counts, means, **looks[title])
            band = dict(color=looks[title]['color'], alpha=0.13, linewidth=0)
            axes.fill_between(counts, means - stds, means + stds, **band)
        counts = sorted(tests[split])
        axes.set_xticks(counts, list(map(str, counts)))
        axes.set_xticks([], minor=True)
        _finish(axes, split, 'exemplars per class', 'AP, points')

    size = (4.4 * len(panels), 3.6 + 0.2 * -(-len(looks) // 3))
    return _figure(comparison['title'], panels, paint, size, looks)


def _differences(comparison: dict, names: Sequence[str], evaluation: str) -> list[dict | None]:
    return [comparison['variants'][one]['evaluations'][evaluation]['difference'] for one in names]


def _estimates(
    axes,
    places: Sequence[float],
    differences: Sequence[dict | None],
    base: float = 0,
    upright: bool = False,
) -> None:
    """At each place a diamond for the mean, whiskers for its interval and a dot for each seed."""

    def plot(place: float, values: Sequence[float], **look) -> None:
        line = ([place] * len(values), [base + value for value in values])
        axes.plot(*(line if upright else line[::-1]), **look)

    for place, told in zip(places, differences, strict=True):
        if told is None:
            x, y, turned = (place, base, 90) if upright else (base, place, 0)
            look = dict(rotation=turned, va='center', ha='center' if upright else 'left')
            axes.text(x, y, ' no result', color='0.45', fontsize=8, **look)
            continue
        colour = _COLOURS[told['verdict']]
        if told['low'] is not None:
            bars = dict(marker='_' if upright else '|', markersize=7, linewidth=1.6)
            plot(place, [told['low'], told['high']], color=colour, zorder=2, **bars)
        # in rows just below the interval, so that neither hides the other
        plot(place if upright else place + 0.24, told['values'], zorder=2.5, **_SEED)
        plot(place, [told['mean']], color=colour, marker='D', markersize=6, zorder=3)


def _limits(differences: Sequence[dict | None]) -> tuple[float, float]:
    """Ends of an axis: all seeds and 0, and of the intervals as much as that again."""
    found = [told for told in differences if told]
    shown = [0.0, *(value for told in found for value in told['values'])]
    low, high = min(shown), max(shown)
    span = max(high - low, 0.1)
    ends = [told[end] for told in found if told['n'] > 1 for end in ('low', 'high')]
    left = max(min([low, *ends]), low - span)
    right = min(max([high, *ends]), high + span)
    spare = 0.06 * (right - left) or 0.1
    return left - spare, right + spare


def _finish(axes, title: str, xlabel: str, ylabel: str = '', grid: str = 'both') -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def _figure(
    title: str,
    panels: Sequence[str],
    paint: Callable,
    size: tuple[float, float],
    key: Mapping[str, dict],
) -> np.ndarray:
    """Panels side by side below a title, above a key of labels and their lines' looks."""
    from matplotlib.lines import Line2D

    figure = new_figure(*size)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        paint(axes, panel)
    figure.suptitle(fill(title, int(11 * size[0])), fontsize=11)
    longest = max(map(len, key)) + 6
    columns = max(1, min(3, len(key), int(16 * size[0] / longest)))
    handles = [Line2D([], [], label=label, **look) for label, look in key.items()]
    place = dict(loc='outside lower center', ncols=columns, frameon=False, fontsize=8)
    figure.legend(handles=handles, **place)
    return rendered(figure)


def _key_of_differences() -> dict[str, dict]:
    diamond = dict(marker='D', markersize=6, linewidth=1.6)
    return {
        **{verdict: dict(color=colour, **diamond) for verdict, colour in _COLOURS.items()},
        "a seed's difference": _SEED,
        f'whiskers: {100 * CONFIDENCE:g} % interval': dict(color='0.3', marker='|', linewidth=1.6),
    }
