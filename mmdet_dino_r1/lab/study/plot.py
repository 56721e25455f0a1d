"""Plots of a study: differences to a baseline, AP along a number, AP over exemplars per class.

AP is in points of 100. Blue is higher than the baseline, red lower, by an interval that excludes
no difference; grey is not told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import isfinite, nan
from textwrap import fill

import numpy as np

from ..training.curves import run_colour

_HIGHER = '#0072b2'
_LOWER = '#d55e00'
_UNDECIDED = '#555555'
_LINES = ('-', '--', ':')
_NO_RESULT = 'no result'


@dataclass
class Difference:
    """One cell against its baseline.

    Attributes:
        title: of the cell.
        mean: difference in points; None: no result.
        low: end of its interval; nan: one seed, no interval.
        high: other end, likewise.
        seeds: difference of each seed, ``num_seeds``.
    """

    title: str
    mean: float | None = None
    low: float = nan
    high: float = nan
    seeds: Sequence[float] = field(default_factory=list)

    @property
    def colour(self) -> str:
        """Whether the interval excludes 0, and on which side."""
        if self.low > 0:
            return _HIGHER
        return _LOWER if self.high < 0 else _UNDECIDED


@dataclass
class DifferencePanel:
    """One evaluation of all cells.

    Attributes:
        title: of the evaluation.
        rows: ``num_cells``, the same cells in all panels.
    """

    title: str
    rows: Sequence[Difference]


@dataclass
class NumberPanel:
    """One evaluation along a number in which cells differ.

    Attributes:
        title: of the evaluation.
        baseline: its AP, a dashed line; the cells stand at this plus their differences.
        numbers: of the cells, ``num_cells``.
        cells: ``num_cells``.
    """

    title: str
    baseline: float
    numbers: Sequence[float]
    cells: Sequence[Difference]


@dataclass
class ExemplarCurve:
    """AP of a cell over the number of exemplars per class.

    Attributes:
        title: of the cell.
        counts: exemplars per class, ascending, ``num_points``.
        means: AP at each.
        stds: standard deviation over seeds at each; nan: one seed.
    """

    title: str
    counts: Sequence[int]
    means: Sequence[float]
    stds: Sequence[float]


@dataclass
class ExemplarPanel:
    """The curves of one split.

    Attributes:
        title: of the split.
        curves: ``num_cells``.
    """

    title: str
    curves: Sequence[ExemplarCurve]


def draw_differences(
    title: str, baseline: str, panels: Sequence[DifferencePanel], interval: str = '95 % interval'
) -> np.ndarray:
    """Draw a forest plot: a row for each cell, a panel for each evaluation.

    An interval that is far wider than the differences of all seeds is cut off, with an arrow.

    Args:
        title: the question.
        baseline: title of the cell that is at 0.
        panels: what to draw.
        interval: what the whiskers are.

    Returns:
        RGB image, uint8 ``(height, width, 3)``.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not panels or not all(panel.rows for panel in panels):
        raise ValueError('There is no difference to draw.')
    rows = max(len(panel.rows) for panel in panels)
    longest = max(len(row.title) for row in panels[0].rows)
    painters = [partial(_forest, panel, place == 0, baseline) for place, panel in enumerate(panels)]
    size = (0.075 * longest + 3.6 * len(panels) + 0.3, 0.34 * rows + 1.75)
    return _figure(title, painters, size, _key_of_differences(interval))


def draw_along_number(
    title: str,
    label: str,
    baseline: str,
    panels: Sequence[NumberPanel],
    log: bool = False,
    interval: str = '95 % interval of the difference',
) -> np.ndarray:
    """Draw AP against a number in which cells differ, beside the baseline's.

    Args:
        title: the question.
        label: of the number.
        baseline: title of the cell of the dashed line.
        panels: what to draw.
        log: the number's axis is logarithmic.
        interval: what the whiskers are.

    Returns:
        RGB image, uint8 ``(height, width, 3)``.

    Raises:
        ValueError: there is nothing to draw, or a logarithmic axis has no place for a number.
    """
    if not panels or not all(panel.cells for panel in panels):
        raise ValueError('There is nothing to draw along a number.')
    wrong = sorted({number for panel in panels for number in panel.numbers if number <= 0})
    if log and wrong:
        raise ValueError(
            f'A logarithmic axis has no place for {wrong[0]:g} ({label}); leave that cell out, or '
            'make the axis linear.'
        )
    painters = [partial(_along_number, panel, label, log) for panel in panels]
    handles = [*_key_of_differences(interval), _dashed(baseline)]
    return _figure(title, painters, (4.4 * len(panels), 4.1), handles)


def draw_over_exemplars(title: str, panels: Sequence[ExemplarPanel]) -> np.ndarray:
    """Draw AP over the number of exemplars per class, a colour for each cell.

    Args:
        title: the question.
        panels: what to draw; bands are ± one standard deviation over seeds.

    Returns:
        RGB image, uint8 ``(height, width, 3)``.

    Raises:
        ValueError: there is nothing to draw.
    """
    from matplotlib.lines import Line2D

    if not any(curve.counts for panel in panels for curve in panel.curves):
        raise ValueError('There is no AP over exemplars to draw.')
    titles = list(dict.fromkeys(curve.title for panel in panels for curve in panel.curves))
    looks = {
        name: dict(
            color=run_colour(place), linestyle=_LINES[place // 5 % len(_LINES)], marker='o', ms=4
        )
        for place, name in enumerate(titles)
    }
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    painters = [partial(_over_exemplars, panel, looks) for panel in panels]
    size = (4.4 * len(panels), 3.6 + 0.2 * -(-len(titles) // 3))
    return _figure(title, painters, size, handles)


# --------------------------------------------------------------------- panels
def _forest(panel: DifferencePanel, has_titles: bool, baseline: str, axes) -> None:
    left, right = _forest_limits(panel.rows)
    axes.axvline(0, color='0.3', linewidth=1, linestyle='--')
    for place, row in enumerate(panel.rows):
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
        below = [place + 0.24] * len(row.seeds)
        axes.plot(row.seeds, below, 'o', color='0.62', markersize=3, linestyle='', zorder=2)
        axes.plot(row.mean, place, 'D', color=row.colour, markersize=6, zorder=3)
    axes.set(xlim=(left, right), ylim=(len(panel.rows) - 0.45, -0.55))
    titles = [row.title for row in panel.rows] if has_titles else []
    axes.set_yticks(range(len(panel.rows)), titles or [''] * len(panel.rows), fontsize=9)
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel(fill(f'AP minus that of {baseline}, points', 48), fontsize=9)
    axes.set_title(panel.title, fontsize=10)
    axes.grid(axis='x', alpha=0.3)
    axes.spines[['left', 'top', 'right']].set_visible(False)


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


def _along_number(panel: NumberPanel, label: str, log: bool, axes) -> None:
    if log:
        axes.set_xscale('log')
    axes.axhline(panel.baseline, color='0.3', linewidth=1, linestyle='--')
    pairs = sorted(zip(panel.numbers, panel.cells, strict=True), key=lambda pair: pair[0])
    # every number has a place, with or without a result
    axes.plot([number for number, _ in pairs], [panel.baseline] * len(pairs), linestyle='')
    found = [(number, cell) for number, cell in pairs if cell.mean is not None]
    heights = [panel.baseline + cell.mean for _, cell in found]
    axes.plot([number for number, _ in found], heights, color='0.75', linewidth=1.2, zorder=1)
    for (number, cell), height in zip(found, heights, strict=True):
        if isfinite(cell.low):
            ends = [[cell.mean - cell.low], [cell.high - cell.mean]]
            bars = dict(ecolor=cell.colour, elinewidth=1.6, capsize=4)
            axes.errorbar(number, height, ends, fmt='none', zorder=2, **bars)
        single = [panel.baseline + seed for seed in cell.seeds]
        axes.plot([number] * len(single), single, 'o', color='0.62', markersize=3, zorder=2.5)
        axes.plot(number, height, 'D', color=cell.colour, markersize=6, zorder=3)
    for number, cell in pairs:
        if cell.mean is None:
            place = dict(rotation=90, ha='center', va='center', color='0.45', fontsize=8)
            axes.text(number, panel.baseline, _NO_RESULT, **place)
    numbers = [number for number, _ in pairs]
    axes.set_xticks(numbers, [f'{number:g}' for number in numbers], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel('AP, points', fontsize=9)
    axes.set_title(panel.title, fontsize=10)
    axes.margins(x=0.08)
    axes.grid(axis='y', alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


def _over_exemplars(panel: ExemplarPanel, looks: dict[str, dict], axes) -> None:
    axes.set_xscale('log', base=2)
    for curve in panel.curves:
        means, stds = np.array(curve.means, float), np.nan_to_num(np.array(curve.stds, float))
        axes.plot(curve.counts, means, **looks[curve.title])
        band = dict(color=looks[curve.title]['color'], alpha=0.13, linewidth=0)
        axes.fill_between(curve.counts, means - stds, means + stds, **band)
    counts = sorted({count for curve in panel.curves for count in curve.counts})
    axes.set_xticks(counts, list(map(str, counts)))
    axes.set_xticks([], minor=True)
    axes.set_xlabel('exemplars per class', fontsize=9)
    axes.set_ylabel('AP, points', fontsize=9)
    axes.set_title(panel.title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)


# --------------------------------------------------------------------- figure
def _figure(
    title: str, painters: Sequence[Callable], size: tuple[float, float], handles: Sequence
) -> np.ndarray:
    """Panels side by side below a title, above a key."""
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(painters), squeeze=False)[0]
    for axes, painter in zip(panels, painters, strict=True):
        painter(axes)
    figure.suptitle(fill(title, int(11 * size[0])), fontsize=11)
    longest = max(len(handle.get_label()) for handle in handles) + 6
    columns = max(1, min(3, len(handles), int(16 * size[0] / longest)))
    place = dict(loc='outside lower center', ncols=columns, frameon=False, fontsize=8)
    figure.legend(handles=handles, **place)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _key_of_differences(interval: str) -> list:
    from matplotlib.lines import Line2D

    colours = {'higher': _HIGHER, 'lower': _LOWER, 'not told apart': _UNDECIDED}
    marks = [
        Line2D([], [], color=colour, marker='D', markersize=6, linewidth=1.6, label=verdict)
        for verdict, colour in colours.items()
    ]
    seed = Line2D(
        [], [], color='0.62', marker='o', markersize=3, linestyle='', label="a seed's difference"
    )
    bar = Line2D([], [], color='0.3', marker='|', linewidth=1.6, label=f'whiskers: {interval}')
    return [*marks, seed, bar]


def _dashed(label: str):
    from matplotlib.lines import Line2D

    return Line2D([], [], color='0.3', linewidth=1, linestyle='--', label=label)
