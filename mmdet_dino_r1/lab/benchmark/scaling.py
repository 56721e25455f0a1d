"""How a training step of DINO-R1 grows with one size at a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

from mmengine.config import ConfigDict

from .contenders import check_size, fit_classes
from .workload import Workload

# 'size' is the area of the images relative to the workload's, the others are whole numbers
FACTORS = ('queries', 'classes', 'size', 'batch', 'boxes')
_STRIDE = 32  # sides of images are multiples of it


def vary(
    factor: str, value: float, cfg: ConfigDict, workload: Workload
) -> tuple[ConfigDict, Workload]:
    """Whole config and workload with one size changed; those given stay as they are.

    Args:
        factor: one of ``FACTORS``.
        value: of it.
        cfg: whole config of one of our models.
        workload: what is not varied.

    Raises:
        ValueError: an image is too small for the number of queries.
    """
    if factor == 'queries':
        cfg = copy.deepcopy(cfg)
        cfg.model.num_queries = value
    elif factor == 'size':
        sides = [side * value**0.5 for side in (workload.height, workload.width)]
        height, width = (max(1, round(side / _STRIDE)) * _STRIDE for side in sides)
        workload = replace(workload, height=height, width=width)
    else:
        key = dict(batch='batch_size').get(factor, factor)
        workload = replace(workload, **{key: value})
    check_size(cfg, workload.height, workload.width)
    return fit_classes(cfg, workload.classes), workload


def exponents(values: Sequence[float], figures: Sequence[float]) -> list[float]:
    """Growth between successive points: 0 is none, 1 linear, 2 quadratic.

    Args:
        values: of the factor, ascending, positive.
        figures: positive.
    """
    logs = [(math.log(v), math.log(f)) for v, f in zip(values, figures, strict=True)]
    pairs = zip(logs, logs[1:], strict=False)
    return [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]
