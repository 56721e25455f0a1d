"""How a training step of DINO-R1 grows with one size at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

from mmengine.config import ConfigDict

from .contenders import check_size, fit_classes
from .workload import Workload

# Factor -> its default points. 'prompts' are classes in the batch, 'size' is the area of the
# images relative to the workload's, 'batch' and 'boxes' count images and the boxes in each.
FACTORS = {
    'queries': (225, 450, 900, 1800),
    'prompts': (1, 10, 80, 300, 1203),
    'size': (0.25, 0.5, 1, 2),
    'batch': (1, 2, 4, 8),
    'boxes': (10, 50, 100, 200, 400),
}
_STRIDE = 32  # sides of images are multiples of it


def make_points(
    factor: str, values: Sequence[float], cfg: ConfigDict, workload: Workload
) -> dict[float, tuple[ConfigDict, Workload]]:
    """Config and workload of each point of a factor, all else being equal.

    With 'prompts' as many boxes stand in every image as the most classes need, whatever their
    number, since a class without a box has no prompt in training.

    Args:
        factor: one of ``FACTORS``.
        values: ascending.
        cfg: whole config of one of our models.
        workload: what is not varied.

    Raises:
        ValueError: an image is too small for the number of queries.
    """
    points = {}
    for value in values:
        changed, config = workload, cfg
        if factor == 'queries':
            config = copy.deepcopy(cfg)
            config.model.num_queries = int(value)
        elif factor == 'prompts':
            boxes = math.ceil(max(values) / workload.batch_size)
            changed = replace(workload, classes=int(value), boxes=boxes)
            config = fit_classes(cfg, int(max(values)))
        elif factor == 'size':
            height, width = (
                max(1, round(side * value**0.5 / _STRIDE)) * _STRIDE
                for side in (workload.height, workload.width)
            )
            changed = replace(workload, height=height, width=width)
        else:
            key = dict(batch='batch_size', boxes='boxes')[factor]
            changed = replace(workload, **{key: int(value)})
        check_size(config, changed.height, changed.width)
        points[value] = config, changed
    return points


def exponents(values: Sequence[float], figures: Sequence[float]) -> list[float]:
    """Growth between successive points: 0 is none, 1 linear, 2 quadratic.

    Args:
        values: of the factor, ascending, positive.
        figures: positive.
    """
    logs = [(math.log(v), math.log(f)) for v, f in zip(values, figures, strict=True)]
    pairs = zip(logs, logs[1:], strict=False)
    return [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]
