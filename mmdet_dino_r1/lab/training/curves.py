"""Curves of a training, or of several: detection losses, rewards, KL, validation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

# Of the last decoder layer, whose boxes are the model's answer.
DETECTION_LOSSES = {
    'loss_cls': 'classification',
    'loss_bbox': 'L1',
    'loss_iou': 'GIoU',
}
VALIDATION = {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50'}
# Sums over the selection and all decoder layers, by the form of their names.
SUMMED_LOSSES = {
    'Classification loss': r'(d\d+\.|enc_)?loss_cls',
    'L1 loss': r'(d\d+\.|enc_)?loss_bbox',
    'GIoU loss': r'(d\d+\.|enc_)?loss_iou',
    'Denoising losses': r'(d\d+\.)?dn_loss_(cls|bbox|iou)',
}
# The number of a validation: the first of these that it has.
AP_KEYS = ('mean/coco/bbox_mAP', 'coco/bbox_mAP', 'lvis_fixed_ap/AP', 'lvis/bbox_AP')
RUN_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#555555')
_PER_ROW = 4


def draw_curves(train: Sequence[dict], val: Sequence[dict]) -> np.ndarray:
    """Draw a panel for each kind of value that was logged.

    Args:
        train: Logged training steps: ``step`` in iterations, detection losses
            and, with GRQO, ``grqo_reward_mean``, ``grqo_reward_std`` and
            ``grqo_kl``.
        val: Validations: ``step`` in epochs and COCO metrics in [0, 1].

    Returns:
        RGB image, uint8 ``(height, width, 3)``. Panels without a value are
        left out.

    Raises:
        ValueError: If nothing is left to draw.
    """
    painters = [
        partial(painter, rows)
        for painter, rows, key in (
            (_losses, train, 'loss_cls'),
            (_reward, train, 'grqo_reward_mean'),
            (_kl, train, 'grqo_kl'),
            # a single validation is no curve
            (_validation, val if len(val) > 1 else (), 'coco/bbox_mAP'),
        )
        if any(key in row for row in rows)
    ]
    if not painters:
        raise ValueError('The log holds neither losses nor validations.')
    return _panels(painters)


def draw_runs(runs: Mapping[str, Sequence[dict]]) -> np.ndarray:
    """Draw several trainings in one figure, a panel for each kind of value, a colour for each run.

    Losses are sums over the selection and all decoder layers, so a training with GRQO and one
    without compare in all of them; rewards and KL have only the runs that log them.

    Args:
        runs: by title, the lines that were logged, ``step`` in iterations, validations too.

    Returns:
        RGB image, uint8 ``(height, width, 3)``. Panels without a value are left out.

    Raises:
        ValueError: If nothing is left to draw.
    """
    panels = [
        (title, 'weighted loss', {run: summed(rows, form) for run, rows in runs.items()})
        for title, form in SUMMED_LOSSES.items()
    ]
    panels += [
        ('Reward of a query', 'mean ± spread', {run: _rewards(rows) for run, rows in runs.items()}),
        (
            'KL to the reference model',
            'KL per query',
            {run: _column(rows, 'grqo_kl') for run, rows in runs.items()},
        ),
        ('Validation', 'AP, points', {run: _ap(rows) for run, rows in runs.items()}),
    ]
    painters = [
        partial(_compared, *panel)
        for panel in panels
        if any(len(steps) for steps, *_ in panel[2].values())
    ]
    if not painters:
        raise ValueError('The logs hold neither losses nor validations.')
    return _panels(painters)


def summed(rows: Sequence[dict], form: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the sum of all values whose whole name matches, of the rows that have one.

    Args:
        rows: logged lines.
        form: regular expression, see ``SUMMED_LOSSES``.

    Returns:
        Two arrays of (num_rows,), of the rows that have one.
    """
    steps, sums = [], []
    for row in rows:
        if found := [value for key, value in row.items() if re.fullmatch(form, key)]:
            steps.append(row['step'])
            sums.append(sum(found))
    return np.array(steps), np.array(sums, float)


def run_colour(place: int) -> str:
    """Colour of the n-th run or model of a figure."""
    return RUN_COLOURS[place % len(RUN_COLOURS)]


def _ap(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and AP in points of the validations."""
    for key in AP_KEYS:
        steps, values = _column(rows, key)
        if len(steps):
            return steps, 100 * values
    return np.array(()), np.array(())


def _rewards(rows: Sequence[dict]) -> tuple[np.ndarray, ...]:
    """Steps, mean and, where it was logged with every mean, spread."""
    steps, mean = _column(rows, 'grqo_reward_mean')
    spread_steps, spread = _column(rows, 'grqo_reward_std')
    return (steps, mean, spread) if np.array_equal(steps, spread_steps) else (steps, mean)


def _compared(title: str, label: str, curves: Mapping[str, tuple[np.ndarray, ...]], axes) -> None:
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
    axes.legend()


def _panels(painters: Sequence[Callable]) -> np.ndarray:
    """A figure with one panel for each painter, at most four beside one another."""
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_PER_ROW, len(painters))
    rows = -(-len(painters) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for place, painter in enumerate(painters, start=1):
        axes = figure.add_subplot(rows, columns, place)
        painter(axes)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _column(rows: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have a key, both ``(n, )``."""
    found = [(row['step'], row[key]) for row in rows if key in row]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps), np.array(values, float)


def _losses(train: Sequence[dict], axes) -> None:
    for key, name in DETECTION_LOSSES.items():
        axes.plot(*_column(train, key), label=name)
    axes.set(title='Detection losses (last layer)', xlabel='iteration', ylabel='weighted loss')
    axes.set_ylim(bottom=0)
    axes.legend()


def _reward(train: Sequence[dict], axes) -> None:
    steps, mean, *spread = _rewards(train)
    axes.plot(steps, mean, label='mean')
    for width in spread:
        axes.fill_between(steps, mean - width, mean + width, alpha=0.25, label='± spread')
    axes.set(title='Reward of a query', xlabel='iteration', ylabel='minus lowest match cost')
    axes.legend()


def _kl(train: Sequence[dict], axes) -> None:
    axes.plot(*_column(train, 'grqo_kl'), color='tab:green')
    axes.set(title='KL to the reference model', xlabel='iteration', ylabel='KL per query')


def _validation(val: Sequence[dict], axes) -> None:
    for key, name in VALIDATION.items():
        epochs, values = _column(val, key)
        axes.plot(epochs, 100 * values, marker='o', markersize=3, label=name)
    axes.set(title='Validation, base classes', xlabel='epoch', ylabel='points')
    axes.set_ylim(bottom=0)
    axes.legend()
