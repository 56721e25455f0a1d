"""Which boxes stand for which classes in one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """

    image_index: Tensor
    boxes: Tensor
    labels: Tensor
    is_placeholder: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def placeholder(cls, boxes_like: Tensor) -> ExemplarChoice:
        """The whole first image as an exemplar of no class (label -1).

        Args:
            boxes_like: any tensor with the dtype and device that ``boxes`` should have.
        """
        return cls(
            image_index=torch.zeros(1, dtype=torch.long),
            boxes=boxes_like.new_tensor([[0.5, 0.5, 1.0, 1.0]]),
            labels=torch.full((1,), -1, dtype=torch.long),
            is_placeholder=True,
        )
