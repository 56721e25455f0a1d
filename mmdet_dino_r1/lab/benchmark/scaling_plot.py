"""How time and memory grow with each size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TIME = '#0072b2'
_INFERENCE = '#56b4e9'
_MEMORY = '#d55e00'
_LINEAR = '#999999'


@dataclass
class ScalingPanel:
    """The growth with one factor.

    Attributes:
        unit: of the factor, below the axis.
        values: of the factor, ascending.
        seconds: of a training step at each.
        memory: GiB at each; None: not measured.
        inference_seconds: of one image at each; None: not measured.
    """

    unit: str
    values: Sequence[float]
    seconds: Sequence[float]
    memory: Sequence[float] | None = None
    inference_seconds: Sequence[float] | None = None


def draw_scaling(panels: Sequence[ScalingPanel]) -> np.ndarray:
    """Draw a panel for each factor, time on the left and memory on the right, all logarithmic.

    A dashed line through the last point of each curve is what linear growth would be: a curve
    steeper than that at its end grows faster.

    Args:
        panels: what to draw.

    Returns:
        RGB image, uint8 ``(height, width, 3)``.

    Raises:
        ValueError: there is no panel.
    """
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not panels:
        raise ValueError('There is no scaling to draw.')
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows + 0.4), dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), panel)
    marked = dict(marker='o', markersize=4)
    handles = [Line2D([], [], color=_TIME, label='training step', **marked)]
    if any(panel.inference_seconds for panel in panels):
        handles.append(Line2D([], [], color=_INFERENCE, label='inference, one image', **marked))
    if any(panel.memory for panel in panels):
        handles.append(Line2D([], [], color=_MEMORY, label='memory of a step', **marked))
    handles.append(Line2D([], [], color=_LINEAR, linestyle='--', label='linear growth'))
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles), frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_panel(axes, panel: ScalingPanel) -> None:
    axes.set_xscale('log')
    _draw_curves(axes, panel.values, {_TIME: panel.seconds, _INFERENCE: panel.inference_seconds})
    axes.set_ylabel('seconds', color=_TIME, fontsize=8)
    labels = [f'{value:.0f}' if value >= 100 else f'{value:.3g}' for value in panel.values]
    axes.set_xticks(panel.values, labels, fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(panel.unit, fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines['top'].set_visible(False)
    if panel.memory:
        right = axes.twinx()
        _draw_curves(right, panel.values, {_MEMORY: panel.memory})
        right.set_ylabel('GiB', color=_MEMORY, fontsize=8)
        right.spines['top'].set_visible(False)
    else:
        axes.spines['right'].set_visible(False)


def _draw_curves(axes, values: Sequence[float], curves: dict) -> None:
    """Curves by colour, on one logarithmic axis of at least a factor of four."""
    axes.set_yscale('log')
    curves = {colour: list(figures) for colour, figures in curves.items() if figures}
    for colour, figures in curves.items():
        linear = [figures[-1] * value / values[-1] for value in values]
        axes.plot(values, linear, color=colour, linestyle='--', linewidth=0.9, alpha=0.5)
        axes.plot(values, figures, color=colour, marker='o', markersize=4, linewidth=1.4)
    shown = [figure for figures in curves.values() for figure in figures if figure > 0]
    low, high = min(shown), max(shown)
    spare = max(1.0, 4 * low / high) ** 0.5 * 1.2
    axes.set_ylim(low / spare, high * spare)
    axes.yaxis.set_major_formatter('{x:.3g}')
    axes.yaxis.set_minor_formatter(_label_of_few)
    axes.tick_params(axis='y', which='both', labelsize=7)


def _label_of_few(value: float, _place: int) -> str:
    """Twos and fives, so that an axis within one decade has labels, too."""
    digit = f'{value:e}'[0]
    return f'{value:.3g}' if digit in '25' else ''
