"""Where the queries are and what they prefer, layer by layer, and the rewards they earn.

Images are RGB, uint8 ``(height, width, 3)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..detections_figure import COLOURS, colour_of
from ..figure import new_figure, rendered, run_colour
from .view import QueryView

_INK = '#1e1e1e'
_FADED = 0.45  # share of white in the image under the dots
_PANEL = 2.1  # inches
_DPI = 130
_SMALL = dict(fontsize=8)
_LEGEND = dict(loc='outside lower center', frameon=False, **_SMALL)


def draw_queries(image: np.ndarray, views: Mapping[str, QueryView]) -> np.ndarray:
    """Draw the queries of one image: a row for each model, by title, a column for each stage.

    A dot is the centre of a query's box, coloured by the prompt that the query prefers, larger and
    stronger with its score. Classes in the image have colours (at most six, the most frequent),
    all others are grey. With ground truth its boxes are outlined, muted queries are hollow, and
    a last row shows how the rewards are distributed, in the colours of the models' titles.
    """
    stages = _common_stages(views.values())
    shown = _coloured_classes(views.values())
    with_rewards = all(view.truth is not None for view in views.values())
    panel = _PANEL * image.shape[0] / image.shape[1]
    heights = [panel] * len(views) + [1.25] * with_rewards
    handles = _class_handles(shown, with_rewards)
    width = _PANEL * len(stages) + 0.6
    # at 8 points a letter takes about 0.065 inches
    longest = max(len(handle.get_label()) for handle in handles)
    columns = min(len(handles), max(1, int(width / (0.065 * longest + 0.55))))
    # inches beside the panels: for the titles of the columns, the last row's texts, the legend
    beside = 0.25 + 0.06 * len(heights) + 0.4 * with_rewards + 0.19 * -(-len(handles) // columns)
    figure = new_figure(width, sum(heights) + beside, _DPI)
    grid = figure.subplots(len(heights), len(stages), squeeze=False, height_ratios=heights)
    for row, (title, view) in enumerate(views.items()):
        for stage, axes in enumerate(grid[row]):
            _draw_stage(axes, image, view, stage, shown)
            axes.set_title(stages[stage] if row == 0 else '', fontsize=9)
        grid[row][0].set_ylabel(title, fontsize=9, color=run_colour(row))
    if with_rewards:
        _draw_histograms(grid[-1], 'reward', [_rewards([view]) for view in views.values()])
        grid[-1][0].set_ylabel('queries', **_SMALL)
    figure.legend(handles=handles, ncols=columns, **_LEGEND)
    return rendered(figure)


def draw_rewards(views: Mapping[str, Sequence[QueryView]]) -> np.ndarray:
    """Draw what the queries of several images earn, by title of the model, a column for each stage.

    Rows: how rewards are distributed; their mean at each place in selection order, the muted
    places shaded; how the advantages of the kept queries are distributed. An image without ground
    truth boxes counts nowhere. ValueError: none is left, or stages or numbers of queries differ.
    """
    views = {
        title: [v for v in of_model if v.truth is not None and len(v.truth.gt_boxes)]
        for title, of_model in views.items()
    }
    if not all(views.values()) or not views:
        raise ValueError('There are no rewards to draw: no image has a ground truth box.')
    everything = [view for of_model in views.values() for view in of_model]
    stages = _common_stages(everything)
    if len({view.boxes.shape[1] for view in everything}) > 1:
        raise ValueError('The views have different numbers of queries.')
    figure = new_figure(2.5 * len(stages) + 0.6, 6.2, _DPI)
    grid = figure.subplots(3, len(stages), squeeze=False)
    _draw_histograms(grid[0], 'reward', [_rewards(of_model) for of_model in views.values()])
    _draw_by_rank(grid[1], views)
    kept = [
        np.concatenate([v.truth.advantages[:, : v.truth.num_kept] for v in of_model], axis=1)
        for of_model in views.values()
    ]
    _draw_histograms(grid[2], 'advantage of kept queries', kept)
    for axes, stage in zip(grid[0], stages, strict=True):
        axes.set_title(f'{stage}\n{axes.get_title()}', **_SMALL)
    for axes, label in zip(grid[:, 0], ('queries', 'mean reward', 'queries'), strict=True):
        axes.set_ylabel(label, **_SMALL)
    figure.legend(*grid[1][0].get_legend_handles_labels(), ncols=5, **_LEGEND)
    return rendered(figure)


def _draw_stage(axes, image: np.ndarray, view: QueryView, stage: int, shown: Sequence[str]) -> None:
    """Dots on the image, which is grey and faded so that only they have colour."""
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    grey = image @ (0.299, 0.587, 0.114) * (1 - _FADED) + 255 * _FADED  # (height, width)
    axes.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0))
    truth, of_prompt = view.truth, np.array([_colour(name, shown) for name in view.class_names])
    if truth is not None:
        for box, prompt in zip(truth.gt_boxes, truth.gt_prompts, strict=True):
            cx, cy, w, h = box * (width, height, width, height)
            for colour, line in (('white', 2), (of_prompt[prompt], 1)):
                look = dict(fill=False, edgecolor=colour, linewidth=line)
                axes.add_patch(Rectangle((cx - w / 2, cy - h / 2), w, h, **look))
    scores, colours = view.best_scores[stage], of_prompt[view.preferred[stage]]
    order = np.argsort(scores)  # the best are drawn last, on top
    strength = 0.4 + 0.6 * scores
    hollow = np.arange(len(scores)) >= (len(scores) if truth is None else truth.num_kept)
    centres = view.boxes[stage, :, :2] * (width, height)
    fill = np.concatenate([colours, np.where(hollow, 0, strength)[:, None]], axis=1)
    edge = np.concatenate([np.where(hollow[:, None], colours, 1), strength[:, None]], axis=1)
    axes.scatter(
        *centres[order].T,
        s=(12 + 60 * scores)[order],
        facecolors=fill[order],
        edgecolors=edge[order],
        linewidths=np.where(hollow, 0.8, 0.4)[order],
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=(), yticks=())
    axes.spines[:].set_edgecolor('#aaaaaa')


def _draw_histograms(row, what: str, values: Sequence[np.ndarray]) -> None:
    """One panel per stage, the same bins and scale in all; (num_stages, n) values of each model."""
    low, high = min(map(np.min, values)), max(map(np.max, values))
    bins = np.linspace(low - 1e-6, high + 1e-6, 31)
    for stage, axes in enumerate(row):
        for place, of_model in enumerate(values):
            look = dict(facecolor=run_colour(place) + '33', edgecolor=run_colour(place))
            axes.hist(of_model[stage], bins, histtype='stepfilled', linewidth=1.1, **look)
            axes.axvline(of_model[stage].mean(), color=run_colour(place), linewidth=1, ls='--')
        means = ' | '.join(f'{of_model[stage].mean():.2f}' for of_model in values)
        axes.set_title(f'{what}, mean {means}', **_SMALL)
    top = max(axes.get_ylim()[1] for axes in row)
    for axes in row:
        axes.set_ylim(0, top)
        _tidy(axes)


def _draw_by_rank(row, views: Mapping[str, Sequence[QueryView]]) -> None:
    """Mean reward by place in selection order, smoothed over a tenth of the queries."""
    first = next(iter(views.values()))[0]
    num_queries, kept = first.boxes.shape[1], first.truth.num_kept
    width = max(1, num_queries // 10)
    means = {t: np.mean([v.truth.rewards for v in vs], axis=0) for t, vs in views.items()}
    for stage, axes in enumerate(row):
        for place, (title, mean) in enumerate(means.items()):
            colour = run_colour(place)
            axes.plot(mean[stage], '.', color=colour, markersize=2, alpha=0.3)
            smooth = np.convolve(mean[stage], np.full(width, 1 / width), mode='valid')
            places = np.arange(len(smooth)) + (width - 1) / 2
            axes.plot(places, smooth, color=colour, linewidth=1.6, label=title)
        if kept < num_queries:
            axes.axvspan(kept - 0.5, num_queries - 0.5, color='#eeeeee', zorder=0, label='muted')
        axes.set_title('reward by place in selection', **_SMALL)
        axes.set_ylim(min(m.min() for m in means.values()), max(m.max() for m in means.values()))
        _tidy(axes)


def _common_stages(views) -> tuple[str, ...]:
    stages = {view.stages for view in views}
    if len(stages) != 1:
        raise ValueError(f'A figure needs views with the same stages, got {sorted(stages)}')
    return stages.pop()


def _coloured_classes(views) -> list[str]:
    """The image's most frequent classes; without ground truth the most preferred ones."""
    counts = Counter()
    for view in views:
        chosen = view.preferred[-1] if view.truth is None else view.truth.gt_prompts
        counts.update(view.class_names[prompt] for prompt in chosen)
    return sorted(counts, key=lambda name: (-counts[name], name))[: len(COLOURS)]


def _colour(name: str | None, shown: Sequence[str]) -> tuple[float, ...]:
    """RGB in [0, 1]; grey for a class that is not shown."""
    return tuple(value / 255 for value in colour_of(shown.index(name) if name in shown else -1))


def _class_handles(shown: Sequence[str], with_truth: bool) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = dict(marker='o', linestyle='', markersize=6)
    handles = [Line2D([], [], color=_colour(name, shown), label=name, **dot) for name in shown]
    handles.append(Line2D([], [], color=_colour(None, shown), label='another class', **dot))
    if with_truth:
        handles.append(Patch(fill=False, edgecolor=_INK, label='ground truth'))
        hollow = dict(dot, markerfacecolor='none', label='hollow: muted by GRQO')
        handles.append(Line2D([], [], color=_INK, **hollow))
    return handles


def _rewards(views: Sequence[QueryView]) -> np.ndarray:
    """(num_stages, n) of all queries."""
    return np.concatenate([view.truth.rewards for view in views], axis=1)


def _tidy(axes) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
