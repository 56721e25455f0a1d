"""Ground truth of a batch in the form that the losses use.

Shapes: num_layers, bs, num_queries, num_gts (of one image), all_gts (of the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import ExemplarChoice
from ...utils.device_copy import box_scales
from ..task_modules import Matches, normalised_boxes


@dataclass(frozen=True)
class TrainingTargets:
    """Boxes of all images one after the other, and which prompt each belongs to.

    Attributes:
        boxes: (all_gts, 4) normalised (cx, cy, w, h).
        prompt_index: (all_gts,) long, the column of the logits that should be high.
        counts: boxes of each image.
        img_shapes: (h, w) of each image, unpadded.
        instances: per image what mmdet's match costs read.
    """

    boxes: Tensor
    prompt_index: Tensor
    counts: Sequence[int]
    img_shapes: Sequence[tuple[int, int]]
    instances: Sequence[InstanceData]

    @classmethod
    def build(cls, batch_data_samples: SampleList, choice: ExemplarChoice) -> TrainingTargets:
        """Targets are one-hot over the classes that have a prompt, ascending.

        Args:
            batch_data_samples: with boxes of those classes only.
            choice: the exemplars.
        """
        ground_truth = [sample.gt_instances for sample in batch_data_samples]
        labels = torch.cat([gts.labels for gts in ground_truth])
        classes = choice.on_device.classes
        prompt_index = torch.searchsorted(classes, labels)
        one_hot = (labels[:, None] == classes).float()  # (all_gts, num_prompts)
        counts = [len(gts) for gts in ground_truth]
        parts = zip(ground_truth, one_hot.split(counts), strict=True)
        instances = [
            InstanceData(
                bboxes=gts.bboxes,
                labels=gts.labels,
                positive_maps=of_image,
                text_token_mask=torch.ones_like(of_image, dtype=torch.bool),
            )
            for gts, of_image in parts
        ]
        return cls(
            boxes=normalised_boxes(batch_data_samples),
            prompt_index=prompt_index,
            counts=counts,
            img_shapes=[tuple(sample.img_shape[:2]) for sample in batch_data_samples],
            instances=instances,
        )

    def pairs(self, matches: Matches) -> Tensor:
        """(4, num_pairs) layer, image, query and position in ``boxes``; on the CPU."""
        counts = torch.tensor(self.counts)
        gt = (counts.cumsum(0) - counts)[matches.image] + matches.gt
        return torch.stack([matches.layer, matches.image, matches.query, gt])

    def scale_of(self, image: Tensor) -> Tensor:
        """(n, 4) pixels per normalised unit, (w, h, w, h), for images (n,)."""
        return box_scales(self.img_shapes, self.boxes.device)[image]

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
        layer, group = torch.meshgrid(
            torch.arange(num_layers), torch.arange(num_groups), indexing='ij'
        )
        shape = (num_layers, num_groups, len(image))
        return Matches(
            layer=layer[..., None].expand(shape).flatten(),
            image=image.expand(shape).flatten(),
            query=(group[..., None] * per_group + slot).flatten(),
            gt=torch.cat(denoised).expand(shape).flatten(),
        )
