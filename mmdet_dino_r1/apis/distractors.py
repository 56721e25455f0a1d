"""Distractors: classes that compete and are never given out.

Every (query, class) pair is scored by itself, so a further class takes nothing from the scores of
the others. What makes a distractor compete is a rule of ours: a detection goes where its query
scores as high or higher for a distractor. Labels from ``first`` on are those of distractors.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from ..utils.near_names import quote_with_near
from .detection_results import fetch

P = ParamSpec('P')
T = TypeVar('T')


def takes_negatives(method: Callable[P, T]) -> Callable[P, T]:
    """Until 0.8, let a method take ``negatives=``, the name of ``distractors=`` in 0.6."""

    @wraps(method)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> T:
        if 'negatives' in kwargs:
            message = 'negatives= is now distractors=; the old name goes in 0.8.'
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            kwargs['distractors'] = kwargs.pop('negatives')
        return method(*args, **kwargs)

    return renamed


def split_distractors(
    class_names: Sequence[str], distractors: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of all names, which may repeat: those wanted, by first appearance, and the distractors.

    Raises:
        ValueError: a distractor has no prompt, or no other class is left.
    """
    if isinstance(distractors, str):
        raise ValueError(f'distractors is a list of class names, got the text {distractors!r}.')
    known = list(dict.fromkeys(class_names))
    for name in distractors:
        if name not in known:
            hint = quote_with_near(name, known, n=1, cutoff=0.0)
            raise ValueError(f'There is no prompt of the distractor {hint}.')
    wanted = tuple(name for name in known if name not in distractors)
    if not wanted:
        raise ValueError('All classes are distractors; nothing is left to detect.')
    return wanted, tuple(dict.fromkeys(distractors))


def predict_with_distractors(model: nn.Module, data: dict, first: int) -> list[DetDataSample]:
    """What a ``DINOR1`` finds in a batch, without distractors and what these explain better.

    The head gives out all (query, class) pairs, which are compared; only then come its limit and
    its suppression.
    """
    head = model.bbox_head
    usual = head.test_cfg
    head.test_cfg = dict(usual, nms=None, max_per_img=sys.maxsize, max_per_chunk=0)
    try:
        samples = fetch(model.test_step(data))
    finally:
        head.test_cfg = usual
    for sample in samples:
        kept = drop_distracted(sample.pred_instances, first)
        kept = kept[: usual.get('max_per_img', model.num_queries)]
        if nms := usual.get('nms'):
            _, keep = batched_nms(kept.bboxes, kept.scores, kept.labels, dict(nms))
            kept = kept[keep]
        sample.pred_instances = kept
    return samples


def drop_distracted(found: InstanceData, first: int) -> InstanceData:
    """Of all pairs of an image, those that neither are distractors nor beaten by one; in order.

    All pairs of a query have its box, by which they are known here.
    """
    _, query = found.bboxes.unique(dim=0, return_inverse=True)
    distracts = found.labels >= first
    best = torch.full_like(found.scores, -1.0)  # of distractors, per query: fewer than pairs
    best.scatter_reduce_(0, query[distracts], found.scores[distracts], 'amax')
    return found[~distracts & (found.scores > best[query])]
