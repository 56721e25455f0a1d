"""Ground truth of a batch in the form that the losses use.

Shapes: num_layers, bs, num_queries, num_gts (of one image), all_gts (of the batch), num_prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import BatchBoxes, ExemplarChoice
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
    def build(cls, ground_truth: BatchBoxes, choice: ExemplarChoice) -> TrainingTargets:
        """Targets are one-hot over the classes that have a prompt, ascending.

        Args:
            ground_truth: boxes of those classes only.
            choice: the exemplars.
        """
        labels, classes = ground_truth.labels, choice.on_device.classes
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
        """(4, num_pairs) layer, image, query and place among all boxes; on the CPU."""
        counts = torch.tensor(self.ground_truth.counts)
        gt = (counts.cumsum(0) - counts)[matches.image] + matches.gt
        return torch.stack([matches.layer, matches.image, matches.query, gt])

    def denoising_matches(self, dn_meta: dict, num_layers: int) -> Matches:
        """Which denoising query restores which ground truth: known without matching.

        DINO lays each group out as positive then negative queries, one of either for each
        denoised ground truth of the fullest image.

        Args:
            dn_meta: from :class:`DenoisingQueries`.
            num_layers: decoder layers.
        """
        num_groups = dn_meta['num_denoising_groups']
        per_group = dn_meta['num_denoising_queries'] // num_groups
        denoised = dn_meta['denoised']
        counts = torch.tensor([len(boxes) for boxes in denoised])
        image = torch.arange(len(counts)).repeat_interleave(counts)  # (all_gts,)
        slot = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        layer, group, image, slot, gt = (
            part.flatten()
            for part in torch.broadcast_tensors(
                torch.arange(num_layers)[:, None, None],
                torch.arange(num_groups)[:, None],
                image,
                slot,
                torch.cat(denoised),
            )
        )
        return Matches(layer, image, group * per_group + slot, gt)
