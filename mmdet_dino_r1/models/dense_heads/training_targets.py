"""Ground truth of a batch in the form that the losses use.

Shapes: num_gts (of one image), all_gts (of the batch), num_prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import BatchBoxes
from ..task_modules import Matches


@dataclass(frozen=True)
class TrainingTargets:
    """Boxes of all images one after the other, and which prompt each belongs to.

    Attributes:
        ground_truth: the boxes, all of classes that have a prompt.
        prompt_index: (all_gts,) long, the column of the logits that should be high.
        instances: per image what mmdet's match costs read: ``bboxes`` (num_gts, 4)
            (x1, y1, x2, y2) in pixels, ``positive_maps`` (num_gts, num_prompts), one-hot.
    """

    ground_truth: BatchBoxes
    prompt_index: Tensor
    instances: Sequence[InstanceData]

    @classmethod
    def build(cls, ground_truth: BatchBoxes, classes: Tensor) -> TrainingTargets:
        """One-hot targets over the classes with a prompt, (num_prompts,) long and ascending.

        Boxes are of those only.
        """
        labels = ground_truth.labels
        one_hot = (labels[:, None] == classes).float()  # (all_gts, num_prompts)
        of_images = (
            rows.split(ground_truth.counts) for rows in (ground_truth.pixels, labels, one_hot)
        )
        instances = [
            InstanceData(
                bboxes=bboxes,
                labels=of_image,
                positive_maps=positive_maps,
                text_token_mask=torch.ones_like(positive_maps, dtype=torch.bool),
            )
            for bboxes, of_image, positive_maps in zip(*of_images, strict=True)
        ]
        return cls(ground_truth, torch.searchsorted(classes, labels), instances)

    def pairs(self, matches: Matches) -> Tensor:
        """(4, num_pairs) stage, image, query and place among all boxes; on the CPU."""
        counts = torch.tensor(self.ground_truth.counts)
        gt = (counts.cumsum(0) - counts)[matches.image] + matches.gt
        return torch.stack([matches.layer, matches.image, matches.query, gt])


def denoising_pairs(positives: Tensor, num_layers: int) -> Tensor:
    """(4, num_pairs) like :meth:`TrainingTargets.pairs`: known without matching.

    ``positives`` (3, n) are image, query and box of one layer, from :class:`DenoisingQueries`.
    """
    layer = torch.arange(num_layers).repeat_interleave(positives.shape[1])
    return torch.cat([layer[None], positives.repeat(1, num_layers)])
