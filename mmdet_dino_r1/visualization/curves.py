"""Curves of a training: detection losses, rewards, KL, validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Of the last decoder layer, whose boxes are the model's answer.
DETECTION_LOSSES = {
    'loss_cls': 'classification',
    'loss_bbox': 'L1',
    'loss_iou': 'GIoU',
}
VALIDATION = {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50'}


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
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    painters = [
        painter
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
    figure = Figure(figsize=(4.2 * len(painters), 3.2), dpi=110, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for axes, painter in zip(
        figure.subplots(1, len(painters), squeeze=False)[0], painters, strict=True
    ):
        painter(axes, val if painter is _validation else train)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _column(rows: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the rows that have a key, both ``(n, )``."""
    found = [(row['step'], row[key]) for row in rows if key in row]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps), np.array(values, float)


def _losses(axes, train: Sequence[dict]) -> None:
    for key, name in DETECTION_LOSSES.items():
        axes.plot(*_column(train, key), label=name)
    axes.set(title='Detection losses (last layer)', xlabel='iteration', ylabel='weighted loss')
    axes.set_ylim(bottom=0)
    axes.legend()


def _reward(axes, train: Sequence[dict]) -> None:
    steps, mean = _column(train, 'grqo_reward_mean')
    axes.plot(steps, mean, label='mean')
    spread_steps, spread = _column(train, 'grqo_reward_std')
    if np.array_equal(steps, spread_steps):
        axes.fill_between(steps, mean - spread, mean + spread, alpha=0.25, label='± spread')
    axes.set(title='Reward of a query', xlabel='iteration', ylabel='minus lowest match cost')
    axes.legend()


def _kl(axes, train: Sequence[dict]) -> None:
    axes.plot(*_column(train, 'grqo_kl'), color='tab:green')
    axes.set(title='KL to the reference model', xlabel='iteration', ylabel='KL per query')


def _validation(axes, val: Sequence[dict]) -> None:
    for key, name in VALIDATION.items():
        epochs, values = _column(val, key)
        axes.plot(epochs, 100 * values, marker='o', markersize=3, label=name)
    axes.set(title='Validation, base classes', xlabel='epoch', ylabel='points')
    axes.set_ylim(bottom=0)
    axes.legend()
