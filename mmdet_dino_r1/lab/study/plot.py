"""Plots of a study: differences to a baseline, AP along a number, AP over exemplars per class.

AP is in points of 100. Blue is higher than the baseline, red lower, by an interval that excludes
no difference; grey is not told apart.

Shapes: images are RGB, uint8 ``(height, width, 3)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, nan
from textwrap import fill

import numpy as np

from ..figure import new_figure, rendered, run_colour
from .statistics import CONFIDENCE

_HIGHER, _LOWER, _UNDECIDED = '#0072b2', '#d55e00', '#555555'
_SEED = dict(color='0.62', marker='o', markersize=3, linestyle='')
_BASELINE = dict(color='0.3', linewidth=1, linestyle='--')
_LINES = ('-', '--', ':')
_NO_RESULT = 'no result'


@dataclass
class Difference:
    """One variant against its baseline.

    Attributes:
        title: of the variant.
        mean: difference in points; None: no result.
        low: end of its interval; nan: one seed, no interval.
        high: other end, likewise.
        seeds: difference of each seed, ``num_seeds``.
    """

    title: str
    mean: float | None = None
    low: float = nan
    high: float = nan
    seeds: Sequence[float] = ()

    @property
    def colour(self) -> str:
        """Whether the interval excludes 0, and on which side."""
        if self.low > 0:
            return _HIGHER
        return _LOWER if self.high < 0 else _UNDECIDED


def draw_report(report: dict) -> dict[str, np.ndarray]:
    """Draw what each comparison of a ``build_report`` has results for; images by name.

    - ``comparison_1_differences``: every variant against the baseline.
    - ``comparison_1_axis``: AP along the number that the comparison's ``axis`` gives its variants.
    - ``comparison_1_exemplars``: AP over the number N of exemplars, of evaluations named
      ``<split>/g<N>``.
    """
    kinds = dict(differences=_report_differences, axis=_report_axis, exemplars=_report_exemplars)
    images = {
        f'comparison_{number}_{kind}': draw(report, comparison)
        for number, comparison in enumerate(report['comparisons'], start=1)
        for kind, draw in kinds.items()
    }
    return {name: image for name, image in images.items() if image is not None}


# ------------------------------------------------------- from numbers to panels
def _report_differences(report: dict, comparison: dict) -> np.ndarray | None:
    others = [name for name in comparison['variants'] if name != comparison['baseline']]
    panels = {
        evaluation: [_difference(report, comparison, name, evaluation) for name in others]
        for evaluation in report['primary']
    }
    if all(row.mean is None for rows in panels.values() for row in rows):
        return None
    return draw_differences(comparison['title'], _baseline_title(report, comparison), panels)


def _report_axis(report: dict, comparison: dict) -> np.ndarray | None:
    axis, baseline = comparison.get('axis'), comparison['baseline']
    # the baseline is a line, so its number, often 0, needs no place on a logarithmic axis
    numbers = {} if axis is None else dict(axis['values'])
    numbers.pop(baseline, None)
    panels = {}
    for evaluation in report['primary']:
        of_baseline = comparison['variants'][baseline]['evaluations'][evaluation]['summary']
        by_number = {
            number: _difference(report, comparison, name, evaluation)
            for name, number in numbers.items()
        }
        if of_baseline and any(variant.mean is not None for variant in by_number.values()):
            panels[evaluation] = (of_baseline['mean'], by_number)
    if not panels:
        return None
    title, log = _baseline_title(report, comparison), axis.get('log', False)
    return draw_along_number(comparison['title'], axis['label'], title, panels, log)


def _report_exemplars(report: dict, comparison: dict) -> np.ndarray | None:
    panels: dict[str, dict[str, list]] = {}
    for evaluation in report['evaluations']:
        if not (named := re.fullmatch(r'(.+)/g(\d+)', evaluation)):
            continue
        for name in comparison['variants']:
            variant = report['variants'][name]
            if told := variant['evaluations'][evaluation]['AP']:
                curve = panels.setdefault(named[1], {}).setdefault(variant['title'], [])
                curve.append((int(named[2]), told['mean'], told['std']))
    panels = {
        split: {title: sorted(curve) for title, curve in curves.items() if len(curve) > 1}
        for split, curves in panels.items()
    }
    panels = {split: curves for split, curves in panels.items() if curves}
    return draw_over_exemplars(comparison['title'], panels) if panels else None


def _difference(report: dict, comparison: dict, name: str, evaluation: str) -> Difference:
    title = report['variants'][name]['title']
    told = comparison['variants'][name]['evaluations'][evaluation]['difference']
    if told is None:
        return Difference(title)
    return Difference(title, told['mean'], told['low'], told['high'], told['values'])


def _baseline_title(report: dict, comparison: dict) -> str:
    return report['variants'][comparison['baseline']]['title']


# -------------------------------------------------------------------- figures
def draw_differences(
    title: str, baseline: str, panels: Mapping[str, Sequence[Difference]]
) -> np.ndarray:
    """Draw a forest plot: a row for each variant, a panel for each evaluation.

    The variant of the title ``baseline`` is at 0; ``panels`` have the same variants. An interval
    that is far wider than the differences of all seeds is cut off, with an arrow.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not panels or not all(panels.values()):
        raise ValueError('There is no difference to draw.')
    rows = next(iter(panels.values()))
    longest = max(len(row.title) for row in rows)
    painters = [
        partial(_forest, name, of, place == 0, baseline)
        for place, (name, of) in enumerate(panels.items())
    ]
    size = (0.075 * longest + 3.6 * len(panels) + 0.3, 0.34 * len(rows) + 1.75)
    return _figure(title, painters, size, [*_key_of_differences()])


def draw_along_number(
    title: str,
    label: str,
    baseline: str,
    panels: Mapping[str, tuple[float, Mapping[float, Difference]]],
    log: bool = False,
) -> np.ndarray:
    """Draw AP against a number in which variants differ, beside the baseline's.

    Args:
        title: of the comparison.
        label: of the number.
        baseline: title of the variant of the dashed line.
        panels: by evaluation the AP of the baseline and, by number, the variants, which stand at
            this AP plus their differences.
        log: the number's axis is logarithmic.

    Raises:
        ValueError: there is nothing to draw, or a logarithmic axis has no place for a number.
    """
    from matplotlib.lines import Line2D

    if not panels or not all(by_number for _, by_number in panels.values()):
        raise ValueError('There is nothing to draw along a number.')
    wrong = min(number for _, by_number in panels.values() for number in by_number)
    if log and wrong <= 0:
        raise ValueError(
            f'A logarithmic axis has no place for {wrong:g} ({label}); leave that variant out, or '
            'make the axis linear.'
        )
    painters = [partial(_along_number, name, *of, label, log) for name, of in panels.items()]
    handles = [*_key_of_differences(), Line2D([], [], label=baseline, **_BASELINE)]
    return _figure(title, painters, (4.4 * len(panels), 4.1), handles)


def draw_over_exemplars(
    title: str, panels: Mapping[str, Mapping[str, Sequence[tuple[int, float, float]]]]
) -> np.ndarray:
    """Draw AP over the number of exemplars per class, a colour for each variant.

    ``panels`` have, by split and title of a variant, exemplars per class, ascending, mean AP, and
    its standard deviation over seeds (the band; nan: one seed).

    Raises:
        ValueError: there is nothing to draw.
    """
    from matplotlib.lines import Line2D

    titles = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not titles:
        raise ValueError('There is no AP over exemplars to draw.')
    looks = {
        name: dict(
            color=run_colour(place), linestyle=_LINES[place // 5 % len(_LINES)], marker='o', ms=4
        )
        for place, name in enumerate(titles)
    }
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    painters = [partial(_over_exemplars, split, of, looks) for split, of in panels.items()]
    size = (4.4 * len(panels), 3.6 + 0.2 * -(-len(titles) // 3))
    return _figure(title, painters, size, handles)


# --------------------------------------------------------------------- panels
def _forest(title: str, rows: Sequence[Difference], has_titles: bool, baseline: str, axes) -> None:
    left, right = _forest_limits(rows)
    axes.axvline(0, **_BASELINE)
    for place, row in enumerate(rows):
        if row.mean is None:
            axes.text(0, place, f' {_NO_RESULT}', va='center', fontsize=8, color='0.45')
            continue
        if isfinite(row.low):
            ends = np.clip([row.low, row.high], left, right)
            axes.plot(ends, [place, place], color=row.colour, linewidth=1.6, zorder=2)
            for end, whole, arrow in zip(ends, (row.low, row.high), '<>', strict=True):
                # a bar where the interval ends, an arrow where it is cut off
                mark = '|' if end == whole else arrow
                axes.plot(end, place, mark, color=row.colour, markersize=7, clip_on=False)
        # single seeds just below the interval, so that neither hides the other
        axes.plot(row.seeds, [place + 0.24] * len(row.seeds), zorder=2, **_SEED)
        axes.plot(row.mean, place, 'D', color=row.colour, markersize=6, zorder=3)
    axes.set(xlim=(left, right), ylim=(len(rows) - 0.45, -0.55))
    names = [row.title if has_titles else '' for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    _finish(axes, title, fill(f'AP minus that of {baseline}, points', 48), grid='x')


def _forest_limits(rows: Sequence[Difference]) -> tuple[float, float]:
    """Ends of the axis: all seeds and 0, and of the intervals as much as that again."""
    shown = [0.0, *(seed for row in rows for seed in row.seeds)]
    shown += [row.mean for row in rows if row.mean is not None]
    low, high = min(shown), max(shown)
    span = max(high - low, 0.1)
    ends = [end for row in rows for end in (row.low, row.high) if isfinite(end)]
    left = max(min([low, *ends]), low - span)
    right = min(max([high, *ends]), high + span)
    spare = 0.06 * (right - left) or 0.1
    return left - spare, right + spare


def _along_number(
    title: str, baseline: float, by_number: Mapping[float, Difference], label: str, log: bool, axes
) -> None:
    if log:
        axes.set_xscale('log')
    axes.axhline(baseline, **_BASELINE)
    numbers = sorted(by_number)
    # every number has a place, with or without a result
    axes.plot(numbers, [baseline] * len(numbers), linestyle='')
    found = [number for number in numbers if by_number[number].mean is not None]
    heights = [baseline + by_number[number].mean for number in found]
    axes.plot(found, heights, color='0.75', linewidth=1.2, zorder=1)
    for number, height in zip(found, heights, strict=True):
        variant = by_number[number]
        if isfinite(variant.low):
            ends = [[variant.mean - variant.low], [variant.high - variant.mean]]
            bars = dict(ecolor=variant.colour, elinewidth=1.6, capsize=4)
            axes.errorbar(number, height, ends, fmt='none', zorder=2, **bars)
        single = [baseline + seed for seed in variant.seeds]
        axes.plot([number] * len(single), single, zorder=2.5, **_SEED)
        axes.plot(number, height, 'D', color=variant.colour, markersize=6, zorder=3)
    for number in sorted(set(numbers) - set(found)):
        place = dict(rotation=90, ha='center', va='center', color='0.45', fontsize=8)
        axes.text(number, baseline, _NO_RESULT, **place)
    axes.set_xticks(numbers, [f'{number:g}' for number in numbers], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08)
    _finish(axes, title, label, 'AP, points', grid='y')


def _over_exemplars(
    title: str, curves: Mapping[str, Sequence], looks: Mapping[str, dict], axes
) -> None:
    axes.set_xscale('log', base=2)
    for name, curve in curves.items():
        counts, means, stds = np.array(curve, float).T
        axes.plot(counts, means, **looks[name])
        ends = (means - np.nan_to_num(stds), means + np.nan_to_num(stds))
        axes.fill_between(counts, *ends, color=looks[name]['color'], alpha=0.13, linewidth=0)
    counts = sorted({count for curve in curves.values() for count, *_ in curve})
    axes.set_xticks(counts, list(map(str, counts)))
    axes.set_xticks([], minor=True)
    _finish(axes, title, 'exemplars per class', 'AP, points')


def _finish(axes, title: str, xlabel: str, ylabel: str = '', grid: str = 'both') -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def _figure(
    title: str, painters: Sequence[Callable], size: tuple[float, float], handles: Sequence
) -> np.ndarray:
    """Panels side by side below a title, above a key."""
    figure = new_figure(*size)
    panels = figure.subplots(1, len(painters), squeeze=False)[0]
    for axes, painter in zip(panels, painters, strict=True):
        painter(axes)
    figure.suptitle(fill(title, int(11 * size[0])), fontsize=11)
    longest = max(len(handle.get_label()) for handle in handles) + 6
    columns = max(1, min(3, len(handles), int(16 * size[0] / longest)))
    place = dict(loc='outside lower center', ncols=columns, frameon=False, fontsize=8)
    figure.legend(handles=handles, **place)
    return rendered(figure)


def _key_of_differences() -> Iterable:
    from matplotlib.lines import Line2D

    colours = {'higher': _HIGHER, 'lower': _LOWER, 'not told apart': _UNDECIDED}
    for verdict, colour in colours.items():
        mark = dict(marker='D', markersize=6, linewidth=1.6)
        yield Line2D([], [], color=colour, label=verdict, **mark)
    yield Line2D([], [], label="a seed's difference", **_SEED)
    whiskers = f'whiskers: {100 * CONFIDENCE:g} % interval'
    yield Line2D([], [], color='0.3', marker='|', linewidth=1.6, label=whiskers)
