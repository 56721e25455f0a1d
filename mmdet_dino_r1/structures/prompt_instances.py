"""Exemplars that a data sample carries to the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor


def prompt_instances(
    boxes: Tensor | Sequence,
    labels: Tensor | Sequence[int],
    file_size: Sequence[int],
    img_shape: Sequence[int],
) -> InstanceData:
    """``prompt_instances`` of a data sample, its boxes scaled to the network input.

    Args:
        boxes: (n, 4) (x1, y1, x2, y2) in pixels of the image file.
        labels: (n,) of their classes.
        file_size: height and width of the image file.
        img_shape: height and width of the network input, without padding.

    Returns:
        ``bboxes`` (n, 4) float (x1, y1, x2, y2) in pixels of the network input, ``labels`` (n,)
        long.
    """
    scale = [img_shape[1] / file_size[1], img_shape[0] / file_size[0]]  # x, y
    return InstanceData(
        bboxes=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4) * torch.tensor(scale * 2),
        labels=torch.as_tensor(labels, dtype=torch.long),
    )
