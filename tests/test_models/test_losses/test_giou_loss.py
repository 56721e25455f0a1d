"""GIoU loss against mmdet's, to the digit."""

import pytest
import torch
from mmdet.models.losses import GIoULoss

from mmdet_dino_r1.models.losses import PromptGIoULoss


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weighted', [False, True])
def test_value_and_gradient_are_mmdets(reduction, weighted):
    """Equal boxes, boxes apart, inside one another and without area among them."""
    target = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 1, 1]])
    boxes = torch.tensor([[0.0, 0, 4, 4], [5, 6, 8, 9], [1, 1, 2, 3], [2, 1, 7, 3], [1, 1, 1, 1]])
    weight = torch.tensor([1.0, 0.5, 2, 0, 1]) if weighted else None
    results = []
    for loss in (PromptGIoULoss, GIoULoss):
        given = boxes.clone().requires_grad_()
        value = loss(loss_weight=2.0)(given, target, weight, reduction_override=reduction)
        value.sum().backward()
        results.append((value.detach(), given.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
