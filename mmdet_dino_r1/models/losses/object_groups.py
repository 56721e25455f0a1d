"""GRQO's other group: the queries that compete for one object (ours; docs/grqo_theory.md).

Every ground truth is matched with several queries. They are compared with one another alone, and
what each is taught is weighed by its advantage in that group.

Shapes: num_stages (decoder layers, then the selection), bs, num_queries, num_prompts; num_pairs
(a query and its ground truth) of all stages and images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...utils.overlap import iou


def rank_in_group(quality: Tensor, group: Tensor) -> Tensor:
    """Place of each query in its group, 0 for the best; equal ones in the order given.

    Args:
        quality: (num_pairs,) in [0, 1].
        group: (num_pairs,) long, the same number for the queries of one group.

    Returns:
        (num_pairs,) long.
    """
    # float64: half a quality stays below the step from group to group, and keeps its digits
    order = (group.double() - quality.double() / 2).argsort(stable=True)
    places = torch.arange(len(group), device=group.device)
    first = torch.ones_like(places, dtype=torch.bool)
    first[1:] = group[order][1:] != group[order][:-1]
    starts = torch.where(first, places, 0).cummax(dim=0).values
    return torch.empty_like(places).scatter(0, order, places - starts)


def quality_loss(logits: Tensor, at: Sequence[Tensor], target: Tensor, gamma: float) -> Tensor:
    """Cross entropy with a soft target where there is one, and p^gamma times that of 0 elsewhere.

    Args:
        logits: any shape.
        at: indices of the matched ones, (num_pairs,) each.
        target: (num_pairs,) in [0, 1], constant.
        gamma: how far background that already scores low is left alone, as in the focal loss.

    Returns:
        The loss of each logit, of their shape: -w log p - (1 - w) log(1 - p) where matched,
        -p^gamma log(1 - p) with a constant p^gamma elsewhere.
    """
    weight = logits.detach().sigmoid() ** gamma
    weight[tuple(at)] = 1
    wanted = torch.zeros_like(logits)
    wanted[tuple(at)] = target
    return weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction='none')


@dataclass(frozen=True)
class ObjectGroups:
    """How many queries compete for an object, and what each is taught.

    With p the score of the object's class, t = p^a IoU^b is a query's quality and r its rank in
    the group. Its advantage is e^(-r / temperature): of the box losses it gets that share, and
    its class is taught t e^(-r / temperature).

    Args:
        queries: how many a ground truth is matched with, in the decoder layers but the last, in
            the last one and in the selection; at most as many as there are for each.
        temperature: how much the second best counts.
        powers: a and b.
        gamma: see :func:`quality_loss`; the lower, the fewer duplicates.

    Raises:
        ValueError: an argument out of range.
    """

    queries: Sequence[int] = (3, 1, 3)
    temperature: float = 1.5
    powers: Sequence[float] = (0.25, 0.75)
    gamma: float = 0.5

    def __post_init__(self) -> None:
        wrong = len(self.queries) != 3 or any(count != int(count) for count in self.queries)
        if wrong or min(self.queries) < 1:
            raise ValueError(
                'GRQOLoss.objects.queries must be three whole numbers of at least 1 (decoder '
                f'layers but the last, last layer, selection), got {self.queries!r}'
            )
        if self.temperature <= 0:
            raise ValueError(
                f'GRQOLoss.objects.temperature must be above 0, got {self.temperature!r}'
            )
        if self.gamma < 0:
            raise ValueError(f'GRQOLoss.objects.gamma must not be negative, got {self.gamma!r}')
        if len(self.powers) != 2 or min(self.powers) < 0:
            raise ValueError(
                'GRQOLoss.objects.powers must be two numbers that are not negative (of the score, '
                f'of the IoU), got {self.powers!r}'
            )

    def sizes(self, num_layers: int) -> list[int]:
        """Queries of each ground truth, by stage."""
        early, last, selected = self.queries
        return [early] * (num_layers - 1) + [last, selected]

    @torch.no_grad()
    def teach(
        self, logits: Tensor, boxes: Tensor, wanted: Tensor, group: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the matched queries are taught; without a gradient.

        Args:
            logits: (num_pairs,) of the class of the query's ground truth.
            boxes: (num_pairs, 4) (x1, y1, x2, y2) in pixels.
            wanted: the ground truths, alike.
            group: (num_pairs,) long, the same number for the queries of one object at one stage.

        Returns:
            The target of the class and the share of the box losses, (num_pairs,) each.
        """
        for_score, for_iou = self.powers
        quality = logits.sigmoid() ** for_score * iou(boxes, wanted) ** for_iou
        advantage = torch.exp(-rank_in_group(quality, group) / self.temperature)
        return quality * advantage, advantage
