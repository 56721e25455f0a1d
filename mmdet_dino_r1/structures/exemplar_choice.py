"""Which boxes stand for which classes in one batch.

An exemplar is what gives one embedding: a box or, for a joint prompt encoder, all boxes of a class
that were chosen on one image.

Shapes: bs, num_exemplars (of all ranks), num_local (of this rank), num_boxes (of this rank's
exemplars), num_classes, dim.
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
        local_indices: (num_local,) long, as in the choice; empty where nothing is shared.
    """

    classes: Tensor
    weights: Tensor
    local_indices: Tensor


@dataclass(frozen=True)
class ExemplarChoice:
    """Exemplars drawn from the images of one batch, or of all ranks' batches.

    Drawn once per step and shared by the policy and the reference model
    (the published code draws twice, unlike its Algorithm 1).

    Attributes:
        local_images: (num_boxes,) long, on the CPU: the image of this rank's batch in which each
            box of this rank's exemplars lies.
        local_boxes: (num_boxes, 4) these boxes, normalised (cx, cy, w, h), relative to the
            unpadded image. Never empty: one box of no meaning where the rank has no exemplar.
        labels: (num_exemplars,) long, on the CPU, dataset-level class of every exemplar.
        local_indices: (num_local,) long, on the CPU: where exemplars are shared across ranks,
            the places in ``labels`` of this rank's; empty where it has none. None: nothing is
            shared, all are this rank's.
        image_mask: (num_exemplars, bs) bool, on the CPU: for which images the exemplar is part of
            its class's prompt; None: for all.
        box_sets: (num_boxes,) long, on the CPU: which of this rank's exemplars each box is of;
            None: each box is an exemplar.
    """

    local_images: Tensor
    local_boxes: Tensor
    labels: Tensor
    local_indices: Tensor | None = None
    image_mask: Tensor | None = None
    box_sets: Tensor | None = None

    def __len__(self) -> int:
        """Exemplars; see :attr:`classes` for the prompts."""
        return len(self.labels)

    @property
    def classes(self) -> Tensor:
        """(num_classes,) long, on the CPU, ascending: prompt u stands for the u-th."""
        return self.labels.unique()

    @property
    def is_placeholder(self) -> bool:
        """There was no box at all. The one exemplar, of no class, keeps the graph connected.

        Every loss of the step must be multiplied by zero.
        """
        return self.labels.tolist() == [-1]

    def mean_over_class(self, embeddings: Tensor) -> Tensor:
        """One prompt per class, the mean of its exemplars, from (num_exemplars, dim) embeddings.

        Gives (num_classes, dim), or (bs, num_classes, dim) where images have prompts of their own.
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
        if self.image_mask is not None or not torch.equal(classes, self.labels):
            weights = (classes[:, None] == self.labels).float()  # (num_classes, num_exemplars)
            if self.image_mask is not None:
                weights = weights * self.image_mask.T[:, None]  # (bs, num_classes, num_exemplars)
            weights = weights / weights.sum(dim=-1, keepdim=True)
        local = classes[:0] if self.local_indices is None else self.local_indices
        return OnDevice(*to_device(self.local_boxes.device, classes, weights, local))

    @classmethod
    def placeholder(cls, boxes_like: Tensor) -> ExemplarChoice:
        """The whole first image as an exemplar of no class (label -1).

        ``boxes_like``, of any shape, has the dtype and device that the box should have.
        """
        whole = remembered_rows([(0.5, 0.5, 1.0, 1.0)], boxes_like.device).to(boxes_like.dtype)
        return cls(torch.zeros(1, dtype=torch.long), whole, torch.full((1,), -1))
