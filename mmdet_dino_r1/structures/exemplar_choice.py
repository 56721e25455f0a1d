"""Which boxes stand for which classes in one batch.

Shapes: bs, num_exemplars (those of other ranks included), num_classes, dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.device_copy import remembered_rows, to_device


class OnDevice(NamedTuple):
    """What the model needs of a choice, on the device of its boxes.

    Attributes:
        classes: (num_classes,) long, ascending.
        weights: (num_classes, num_exemplars) or (bs, num_classes, num_exemplars) float, how much
            of each class's prompt an exemplar is; of no rows where each class has one exemplar.
        own: (num_own,) long, as in the choice; empty where nothing is shared.
    """

    classes: Tensor
    weights: Tensor
    own: Tensor


@dataclass(frozen=True)
class ExemplarChoice:
    """Exemplars drawn from the images of one batch.

    Drawn once per step and shared by the policy and the reference model
    (the published code draws twice, unlike its Algorithm 1).

    Attributes:
        image_index: (num_exemplars,) long, on the CPU: the image of the batch each box lies in.
        boxes: (num_exemplars, 4) normalised (cx, cy, w, h), relative to the unpadded image.
        labels: (num_exemplars,) long, on the CPU, dataset-level class of each box.
        is_placeholder: the batch had no box at all. The single exemplar then only keeps the
            graph connected; every loss of the step must be multiplied by zero.
        serves: (num_exemplars, bs) bool, on the CPU: for which images the exemplar is part of
            its class's prompt; None: for all.
        own: where exemplars are shared across ranks, the positions in ``labels`` of those that
            lie on this rank, (num_own,) long, on the CPU; ``image_index`` and ``boxes`` then
            hold these alone, or one box of no meaning where there are none. None: nothing is
            shared.
        drops_classes: classes of the batch were left out; their boxes must be no targets.
    """

    image_index: Tensor
    boxes: Tensor
    labels: Tensor
    is_placeholder: bool = False
    serves: Tensor | None = None
    own: Tensor | None = None
    drops_classes: bool = False

    def __len__(self) -> int:
        """Exemplars; see :attr:`classes` for the prompts."""
        return len(self.labels)

    @property
    def classes(self) -> Tensor:
        """(num_classes,) long, on the CPU, ascending: prompt u stands for the u-th."""
        return self.labels.unique()

    def mean_over_class(self, embeddings: Tensor) -> Tensor:
        """One prompt per class: the mean of its exemplars.

        Args:
            embeddings: (num_exemplars, dim).

        Returns:
            (num_classes, dim), or (bs, num_classes, dim) where images have prompts of their own.
        """
        weights = self.on_device.weights
        if len(weights) == 0:
            return embeddings
        with torch.autocast(embeddings.device.type, enabled=False):
            return weights.to(embeddings.dtype) @ embeddings

    @cached_property
    def on_device(self) -> OnDevice:
        """Copied once; the reference model reads the same."""
        classes = self.classes
        weights = torch.empty(0)
        if self.serves is not None or not torch.equal(classes, self.labels):
            weights = (classes[:, None] == self.labels).float()  # (num_classes, num_exemplars)
            if self.serves is not None:
                weights = weights * self.serves.T[:, None]  # (bs, num_classes, num_exemplars)
            weights = weights / weights.sum(dim=-1, keepdim=True)
        own = classes[:0] if self.own is None else self.own
        return OnDevice(*to_device(self.boxes.device, classes, weights, own))

    @classmethod
    def placeholder(cls, boxes_like: Tensor) -> ExemplarChoice:
        """The whole first image as an exemplar of no class (label -1).

        Args:
            boxes_like: of any shape, with the dtype and device that ``boxes`` should have.
        """
        return cls(
            image_index=torch.zeros(1, dtype=torch.long),
            boxes=remembered_rows(((0.5, 0.5, 1.0, 1.0),), boxes_like.device).to(boxes_like.dtype),
            labels=torch.full((1,), -1, dtype=torch.long),
            is_placeholder=True,
        )
