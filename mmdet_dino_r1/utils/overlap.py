"""Overlap of boxes, as mmdet computes it but without copies to the device.

Shapes: n, m boxes; all are (x1, y1, x2, y2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU in [0, 1] of boxes and others that broadcast, as with :func:`generalised_iou`: (n, 4)."""
    shared, union = _shared_and_union(boxes, others, eps)
    return shared / union


def generalised_iou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tensor:
    """GIoU in (-1, 1] of boxes and others that broadcast, (n, 4) or (n, 1, 4) with (m, 4).

    Areas below ``eps`` count as that. mmdet's ``bbox_overlaps`` puts it into a tensor, for which
    the CPU waits on CUDA in every call.
    """
    shared, union = _shared_and_union(boxes, others, eps)
    low = torch.min(boxes[..., :2], others[..., :2])
    high = torch.max(boxes[..., 2:], others[..., 2:])
    sides = (high - low).clamp(min=0)
    enclosing = (sides[..., 0] * sides[..., 1]).clamp(min=eps)
    return shared / union - (enclosing - union) / enclosing


def _shared_and_union(boxes: Tensor, others: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Areas of what two boxes have in common and of what they cover."""
    areas = [(b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (boxes, others)]
    low = torch.max(boxes[..., :2], others[..., :2])
    high = torch.min(boxes[..., 2:], others[..., 2:])
    sides = (high - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, (areas[0] + areas[1] - shared).clamp(min=eps)
