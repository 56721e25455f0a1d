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
        classes = choice.classes.to(labels.device)
        prompt_index = torch.searchsorted(classes, labels)
        counts = [len(gts) for gts in ground_truth]
        instances = []
        for gts, index in zip(ground_truth, prompt_index.split(counts), strict=True):
            one_hot = torch.nn.functional.one_hot(index, len(classes)).float()
            instances.append(
                InstanceData(
                    bboxes=gts.bboxes,
                    labels=gts.labels,
                    positive_maps=one_hot,
                    text_token_mask=torch.ones_like(one_hot, dtype=torch.bool),
                )
            )
        return cls(
            boxes=torch.cat([normalised_boxes(sample) for sample in batch_data_samples]),
            prompt_index=prompt_index,
            counts=counts,
            img_shapes=[tuple(sample.img_shape[:2]) for sample in batch_data_samples],
            instances=instances,
        )

    def flat_index(self, matches: Matches) -> Tensor:
        """(num_pairs,) position of each pair's ground truth in ``boxes``; on the CPU."""
        counts = torch.tensor(self.counts)
        return (counts.cumsum(0) - counts)[matches.image] + matches.gt

    def scale_of(self, image: Tensor) -> Tensor:
        """(n, 4) pixels per normalised unit, (w, h, w, h), for images (n,)."""
        sizes = self.boxes.new_tensor([[w, h, w, h] for h, w in self.img_shapes])
        return sizes[image]

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
