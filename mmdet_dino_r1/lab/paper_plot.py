"""Measured numbers beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MEASURED = '#0072b2'
_PAPER = '#555555'


@dataclass
class BenchmarkPanel:
    """The bars of one benchmark.

    Args:
        title: Stands above them.
        models: Names, ``num_models``.
        measured: AP in points, ``num_models``; None where nothing was measured.
        paper: Numbers that the paper gives, ``num_models`` of none, one, or several where it is
            not clear which is meant.
    """

    title: str
    models: Sequence[str]
    measured: Sequence[float | None]
    paper: Sequence[Sequence[float]]


def draw_benchmarks(panels: Sequence[BenchmarkPanel]) -> np.ndarray:
    """Draw a panel for each benchmark: per model a filled bar (measured) and a hatched one (paper).

    Args:
        panels: What to draw.

    Returns:
        RGB image, uint8 ``(height, width, 3)``.

    Raises:
        ValueError: If there is no panel.
    """
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    if not panels:
        raise ValueError('There is no benchmark to draw.')
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for place, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), panel)
    frame = dict(facecolor='white', edgecolor=_PAPER)
    handles = [
        Patch(facecolor=_MEASURED, label='measured'),
        Patch(label='paper', hatch='////', **frame),
    ]
    if any(len(numbers) > 1 for panel in panels for numbers in panel.paper):
        handles.append(Patch(label='paper, its other figure', linestyle='--', **frame))
    figure.legend(handles=handles, loc='outside lower center', ncols=3, frameon=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_panel(axes, panel: BenchmarkPanel) -> None:
    for place, (measured, paper) in enumerate(zip(panel.measured, panel.paper, strict=True)):
        if measured is not None:
            bars = axes.bar(place - 0.2, measured, 0.38, color=_MEASURED)
            axes.bar_label(bars, fmt='%.1f', fontsize=6.5)
        # the lower number is a solid frame, another one stands on it dashed
        for number, line in zip(sorted(paper), ('-', '--'), strict=False):
            bars = axes.bar(
                place + 0.2,
                number,
                0.38,
                fill=False,
                edgecolor=_PAPER,
                linestyle=line,
                hatch='////' if line == '-' else None,
            )
            if number == max(paper):
                axes.bar_label(bars, fmt='%.1f', fontsize=6.5, color=_PAPER)
    axes.set_xticks(range(len(panel.models)), panel.models, rotation=45, ha='right', fontsize=8)
    axes.set_xlim(-0.6, len(panel.models) - 0.4)
    axes.set_title(panel.title, fontsize=9)
    axes.set_ylabel('box AP, points')
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
