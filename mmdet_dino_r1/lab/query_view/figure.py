"""Where the queries are and what they prefer, layer by layer, and the rewards they earn.

Images are RGB, uint8 ``(height, width, 3)``; the views' boxes are normalised ``(cx, cy, w, h)``.
Stages are the encoder's selection, then the decoder layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..detections_figure import COLOURS, OTHER, colour_of
from ..figure import run_colour
from .view import QueryView

_INK = '#1e1e1e'
_FADED = 0.45  # share of white in the image under the dots
_PANEL = 2.1  # inches
_TRUTH, _NO_TRUTH = 'ground truth', 'hollow: muted by GRQO'


def draw_queries(image: np.ndarray, views: Mapping[str, QueryView]) -> np.ndarray:
    """Draw the queries of one image: a row for each model, a column for each stage.

    A dot is the centre of a query's box, coloured by the prompt that the query prefers, larger and
    stronger with its score. Classes in the image have colours (at most six, the most frequent),
    all others are grey. With ground truth its boxes are outlined, muted queries are hollow, and
    a last row shows how the rewards are distributed, in the colours of the models' titles.

    Args:
        image: (height, width, 3), what the views are of, in any size.
        views: by title of the model; all of this image, with as many stages.

    Returns:
        RGB image.

    Raises:
        ValueError: there is no view, or their stages differ.
    """
    stages = _common_stages(views.values())
    shown = _coloured_classes(list(views.values()))
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
    figure, canvas = _figure((width, sum(heights) + beside))
    grid = figure.subplots(
        len(heights), len(stages), squeeze=False, gridspec_kw=dict(height_ratios=heights)
    )
    for row, (title, view) in enumerate(views.items()):
        for stage, axes in enumerate(grid[row]):
            _draw_stage(axes, image, view, stage, shown)
            if row == 0:
                axes.set_title(stages[stage], fontsize=9)
        grid[row][0].set_ylabel(title, fontsize=9, color=_run_colours(views)[row])
    if with_rewards:
        _draw_histograms(grid[-1], {title: [view] for title, view in views.items()}, 'rewards')
        grid[-1][0].set_ylabel('queries', fontsize=8)
    figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=columns,
        frameon=False,
        fontsize=8,
    )
    return _rendered(canvas)


def draw_rewards(views: Mapping[str, Sequence[QueryView]]) -> np.ndarray:
    """Draw what the queries of several images earn, a column for each stage.

    Rows: how rewards are distributed; their mean at each place in selection order, the muted
    places shaded; how the advantages of the kept queries are distributed. Each model has a colour.

    Args:
        views: of each model, by title, with ground truth. An image without any counts nowhere.

    Returns:
        RGB image.

    Raises:
        ValueError: no view has ground truth boxes, or stages or numbers of queries differ.
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
    figure, canvas = _figure((2.5 * len(stages) + 0.6, 6.2))
    grid = figure.subplots(3, len(stages), squeeze=False)
    _draw_histograms(grid[0], views, 'rewards')
    _draw_by_rank(grid[1], views)
    _draw_histograms(grid[2], views, 'advantages')
    for axes, stage in zip(grid[0], stages, strict=True):
        axes.set_title(f'{stage}\n{axes.get_title()}', fontsize=8)
    for axes, label in zip(grid[:, 0], ('queries', 'mean reward', 'queries'), strict=True):
        axes.set_ylabel(label, fontsize=8)
    figure.legend(
        *grid[1][0].get_legend_handles_labels(),
        loc='outside lower center',
        ncols=5,
        frameon=False,
        fontsize=8,
    )
    return _rendered(canvas)


# ------------------------------------------------------------------- panels
def _draw_stage(axes, image: np.ndarray, view: QueryView, stage: int, shown: Sequence[str]) -> None:
    """Dots on the image, which is grey and faded so that only they have colour."""
    from matplotlib.patches import Rectangle

    height, width = image.shape[:2]
    grey = image @ (0.299, 0.587, 0.114) * (1 - _FADED) + 255 * _FADED  # (height, width)
    axes.imshow(grey, cmap='gray', vmin=0, vmax=255, extent=(0, width, height, 0))
    truth = view.truth
    if truth is not None:
        for box, prompt in zip(truth.gt_boxes, truth.gt_prompts, strict=True):
            cx, cy, w, h = box * (width, height, width, height)
            place = ((cx - w / 2, cy - h / 2), w, h)
            frame = _colour(view.class_names[prompt], shown)
            axes.add_patch(Rectangle(*place, fill=False, edgecolor='white', linewidth=2))
            axes.add_patch(Rectangle(*place, fill=False, edgecolor=frame, linewidth=1))
    scores = view.best_scores[stage]
    # the best are drawn last, on top
    order = np.argsort(scores)
    colours = np.array(
        [_colour(view.class_names[prompt], shown) for prompt in view.preferred[stage]]
    )
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


def _draw_histograms(row, views: Mapping[str, Sequence[QueryView]], what: str) -> None:
    """One panel per stage; the same bins and scale in all of them."""
    values = {title: _values(of_model, what) for title, of_model in views.items()}
    everything = np.concatenate([of_model.ravel() for of_model in values.values()])
    bins = np.linspace(everything.min() - 1e-6, everything.max() + 1e-6, 31)
    top = 0
    for stage, axes in enumerate(row):
        for (_, of_model), colour in zip(values.items(), _run_colours(values), strict=True):
            count, *_ = axes.hist(of_model[stage], bins, histtype='stepfilled', color=colour + '33')
            axes.hist(of_model[stage], bins, histtype='step', color=colour, linewidth=1.1)
            axes.axvline(of_model[stage].mean(), color=colour, linewidth=1, linestyle='--')
            top = max(top, count.max())
        means = ' | '.join(f'{of_model[stage].mean():.2f}' for of_model in values.values())
        name = 'reward' if what == 'rewards' else 'advantage of kept queries'
        axes.set_title(f'{name}, mean {means}', fontsize=8)
    for axes in row:
        axes.set_ylim(0, 1.05 * top)
        _tidy(axes)


def _draw_by_rank(row, views: Mapping[str, Sequence[QueryView]]) -> None:
    """Mean reward by place in selection order, smoothed over a tenth of the queries."""
    colours = _run_colours(views)
    first = next(iter(views.values()))[0]
    num_queries, kept = first.boxes.shape[1], first.truth.num_kept
    width = max(1, num_queries // 10)
    means = {t: np.mean([v.truth.rewards for v in vs], axis=0) for t, vs in views.items()}
    for stage, axes in enumerate(row):
        for (title, mean), colour in zip(means.items(), colours, strict=True):
            axes.plot(mean[stage], '.', color=colour, markersize=2, alpha=0.3)
            smooth = np.convolve(mean[stage], np.full(width, 1 / width), mode='valid')
            places = np.arange(len(smooth)) + (width - 1) / 2
            axes.plot(places, smooth, color=colour, linewidth=1.6, label=title)
        if kept < num_queries:
            axes.axvspan(kept - 0.5, num_queries - 0.5, color='#eeeeee', zorder=0, label='muted')
        axes.set_title('reward by place in selection', fontsize=8)
        axes.set_ylim(min(m.min() for m in means.values()), max(m.max() for m in means.values()))
        _tidy(axes)


# ------------------------------------------------------------------- shared
def _common_stages(views) -> tuple[str, ...]:
    stages = {view.stages for view in views}
    if len(stages) != 1:
        raise ValueError(f'A figure needs views with the same stages, got {sorted(stages)}')
    return stages.pop()


def _coloured_classes(views: Sequence[QueryView]) -> list[str]:
    """The image's most frequent classes; without ground truth the most preferred ones."""
    counts = Counter()
    for view in views:
        truth = view.truth
        chosen = view.preferred[-1] if truth is None else truth.gt_prompts
        counts.update(view.class_names[prompt] for prompt in chosen)
    ordered = sorted(counts, key=lambda name: (-counts[name], name))
    return ordered[: len(COLOURS)]


def _colour(name: str, shown: Sequence[str]) -> tuple[float, ...]:
    """RGB in [0, 1]."""
    return tuple(value / 255 for value in colour_of(shown.index(name) if name in shown else -1))


def _class_handles(shown: Sequence[str], with_truth: bool) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = dict(marker='o', linestyle='', markersize=6)
    handles = [Line2D([], [], color=_colour(name, shown), label=name, **dot) for name in shown]
    grey = tuple(value / 255 for value in OTHER)
    handles.append(Line2D([], [], color=grey, label='another class', **dot))
    if with_truth:
        handles.append(Patch(fill=False, edgecolor=_INK, label=_TRUTH))
        handles.append(Line2D([], [], color=_INK, markerfacecolor='none', label=_NO_TRUTH, **dot))
    return handles


def _values(views: Sequence[QueryView], what: str) -> np.ndarray:
    """(num_stages, n): rewards of all queries, or advantages of those that are kept."""
    if what == 'rewards':
        return np.concatenate([view.truth.rewards for view in views], axis=1)
    return np.concatenate(
        [view.truth.advantages[:, : view.truth.num_kept] for view in views], axis=1
    )


def _run_colours(views: Mapping) -> list[str]:
    return [run_colour(place) for place in range(len(views))]


def _tidy(axes) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def _figure(size: tuple[float, float]):
    # here, because the package is imported for every training as well
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout='constrained')
    return figure, FigureCanvasAgg(figure)


def _rendered(canvas) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
