"""Curves of trainings: detection losses, rewards, KL, validation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ..figure import new_figure, rendered, run_colour

# Sums over the selection and all decoder layers, by the form of their names.
SUMMED_LOSSES = {
    'Classification loss': r'(d\d+\.|enc_)?loss_cls',
    'L1 loss': r'(d\d+\.|enc_)?loss_bbox',
    'GIoU loss': r'(d\d+\.|enc_)?loss_iou',
    'Denoising losses': r'(d\d+\.)?dn_loss_(cls|bbox|iou)',
}
# The number of a validation: the first of these that it has.
AP_KEYS = ('mean/coco/bbox_mAP', 'coco/bbox_mAP', 'lvis_fixed_ap/AP', 'lvis/bbox_AP')
_PER_ROW = 4


def draw_runs(runs: Mapping[str, Sequence[dict]]) -> np.ndarray:
    """Draw trainings, by title, in one figure: a panel per kind of value, a colour per run.

    Losses are sums over the selection and all decoder layers, so a training with GRQO and one
    without compare in all of them; rewards and KL have only the runs that log them. Panels without
    a value are left out. An image is RGB, uint8 ``(height, width, 3)``. ValueError: none is left.
    """
    kinds = [
        (title, 'weighted loss', partial(summed, form=form))
        for title, form in SUMMED_LOSSES.items()
    ]
    kinds += [
        ('Reward of a query', 'mean ± spread', _rewards),
        ('KL to the reference model', 'KL per query', partial(summed, form='grqo_kl')),
        ('Validation', 'AP, points', _ap),
    ]
    panels = [
        (title, label, {run: values_of(rows) for run, rows in runs.items()})
        for title, label, values_of in kinds
    ]
    panels = [panel for panel in panels if any(len(steps) for steps, *_ in panel[2].values())]
    if not panels:
        raise ValueError('The logs hold neither losses nor validations.')
    columns = min(_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 3.2 * rows)
    for place, panel in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), *panel)
    return rendered(figure)


def summed(rows: Sequence[dict], form: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and sums (num_rows,) of the values whose name matches a form, of rows that have one."""
    steps, sums = [], []
    for row in rows:
        if found := [value for key, value in row.items() if re.fullmatch(form, key)]:
            steps.append(row['step'])
            sums.append(sum(found))
    return np.array(steps), np.array(sums, float)


def _ap(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and AP in points of the validations."""
    for key in AP_KEYS:
        steps, values = summed(rows, re.escape(key))
        if len(steps):
            break
    return steps, 100 * values


def _rewards(rows: Sequence[dict]) -> tuple[np.ndarray, ...]:
    """Steps, mean and, where it was logged with every mean, spread."""
    steps, mean = summed(rows, 'grqo_reward_mean')
    spread_steps, spread = summed(rows, 'grqo_reward_std')
    return (steps, mean, spread) if np.array_equal(steps, spread_steps) else (steps, mean)


def _draw_panel(axes, title: str, label: str, curves: Mapping[str, tuple[np.ndarray, ...]]) -> None:
    """One curve for each run that has values, with a band where there is a spread."""
    for place, (run, (steps, values, *spread)) in enumerate(curves.items()):
        if not len(steps):
            continue
        colour = run_colour(place)
        few = 'o' if len(steps) < 20 else None  # a single validation is a dot
        axes.plot(steps, values, color=colour, label=run, marker=few, markersize=3)
        for width in spread:
            band = (values - width, values + width)
            axes.fill_between(steps, *band, color=colour, alpha=0.15, linewidth=0)
    axes.set(title=title, xlabel='iteration', ylabel=label)
    everything = np.concatenate([values for _, values, *_ in curves.values()])
    if everything.min() >= 0 < everything.max():
        axes.set_ylim(0, 1.05 * everything.max())
    axes.set_xlim(left=0)
    if len(curves) > 1:
        axes.legend()
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
