"""Negatives: classes that compete and are never given out.

Every (query, class) pair is scored by itself, so a further class takes nothing from the scores of
the others. What makes a negative compete is a rule of ours: a detection goes where its query scores
as high or higher for a negative.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from ..utils.near_names import quote_with_near
from .detection_results import fetch


def split_negatives(
    class_names: Sequence[str], negatives: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of all class names, which may repeat: those wanted, and those (negatives) that only compete.

    Returns:
        Wanted classes in order of first appearance, and ``negatives``.

    Raises:
        ValueError: a negative has no prompt, or no other class is left.
    """
    if isinstance(negatives, str):
        raise ValueError(f'negatives is a list of class names, got the text {negatives!r}.')
    known = list(dict.fromkeys(class_names))
    for name in negatives:
        if name not in known:
            hint = quote_with_near(name, known, n=1, cutoff=0.0)
            raise ValueError(f'There is no prompt of the negative class {hint}.')
    wanted = tuple(name for name in known if name not in set(negatives))
    if not wanted:
        raise ValueError('All classes are negatives; nothing is left to detect.')
    return wanted, tuple(dict.fromkeys(negatives))


def predict_with_negatives(model: nn.Module, data: dict, first: int) -> list[DetDataSample]:
    """Detections without negatives, and without what a negative explains better.

    The head gives out all (query, class) pairs, which are compared; only then come its limit and
    its suppression.

    Args:
        model: a ``DINOR1`` with prompts.
        data: a batch, for ``test_step``.
        first: labels from here on are negatives.
    """
    head = model.bbox_head
    usual = head.test_cfg
    head.test_cfg = dict(usual, nms=None, max_per_img=sys.maxsize, max_per_chunk=0)
    try:
        samples = model.test_step(data)
    finally:
        head.test_cfg = usual
    fetch(samples)
    for sample in samples:
        kept = drop_beaten_by_negatives(sample.pred_instances, first)
        kept = kept[: usual.get('max_per_img', model.num_queries)]
        if nms := usual.get('nms'):
            _, keep = batched_nms(kept.bboxes, kept.scores, kept.labels, dict(nms))
            kept = kept[keep]
        sample.pred_instances = kept
    return samples


def drop_beaten_by_negatives(found: InstanceData, first: int) -> InstanceData:
    """Leave out negatives, and what a negative explains better.

    All pairs of a query have its box, by which they are known here.

    Args:
        found: all pairs of the image, ``bboxes`` (n, 4), ``scores`` and ``labels`` (n,).
        first: labels from here on are negatives.

    Returns:
        The other detections, in the same order.
    """
    _, query = found.bboxes.unique(dim=0, return_inverse=True)
    is_negative = found.labels >= first
    rival = torch.full_like(found.scores, -1.0)  # one per query; there are fewer than pairs
    rival.scatter_reduce_(0, query[is_negative], found.scores[is_negative], 'amax')
    return found[~is_negative & (found.scores > rival[query])]
