"""DINO's denoising queries without waiting for the device.

Shapes: bs, all_gts (of the batch, as far as they are denoised), most_gts (of its fullest image),
num_groups, num_denoising (2 * most_gts * num_groups), dim.
"""

from __future__ import annotations

import torch
from mmdet.models.layers import CdnQueryGenerator
from torch import Tensor

from ...structures import BatchBoxes
from ...utils.device_copy import to_device


class DenoisingQueries(CdnQueryGenerator):
    """mmdet's ``CdnQueryGenerator``: the same queries for the same random numbers.

    Differs from the parent (``mmdet/models/layers/transformer/dino_layers.py``) in two ways. Of
    an image with more than ``num_dn_queries`` boxes a random selection of so many is denoised
    (ours); the parent makes two queries of each box at least, however many there are, and the
    attention grows with their square. And no step waits for the device: how many boxes each image
    has is taken from the samples, labels are replaced by a mask, and all places go in one copy
    (the parent reads sizes off tensors, twice for each image, and asks which labels were chosen).
    """

    def __call__(self, ground_truth: BatchBoxes) -> tuple[Tensor, Tensor, Tensor, dict]:
        """Make the denoising queries of a batch's ground truth.

        Returns:
            (bs, num_denoising, dim) content, (bs, num_denoising, 4) noisy boxes (cx, cy, w, h)
            before the sigmoid, the attention mask (num_denoising + num_queries, the same), True
            where a query may not look, and the layout: ``num_denoising_queries``,
            ``num_denoising_groups`` and ``positives`` (3, num_groups * all_gts), for each query
            that shall restore a box its image, its place there and the box's place among all of
            the batch; on the CPU.
        """
        labels, boxes = ground_truth.labels, ground_truth.corners
        denoised = [self._select(count) for count in ground_truth.counts]
        counts = torch.tensor([len(of_image) for of_image in denoised])
        most = int(counts.max())
        num_groups = self.get_num_groups(most)
        num_denoising = 2 * most * num_groups
        first = torch.tensor([0, *ground_truth.counts[:-1]]).cumsum(0)
        chosen = torch.cat([index + i for index, i in zip(denoised, first, strict=True)])
        image = torch.arange(len(counts)).repeat_interleave(counts)  # (all_gts,)
        slot = torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        # (2 * num_groups, all_gts): a group is a positive, then a negative copy of all boxes
        query = slot + most * torch.arange(2 * num_groups)[:, None]
        positives = torch.stack(torch.broadcast_tensors(image, query[::2], chosen)).flatten(1)
        places = (num_denoising * image + query).flatten()
        chosen, places = to_device(labels.device, chosen, places)
        if len(chosen) < len(labels):
            boxes, labels = boxes[chosen], labels[chosen]

        content = self.generate_dn_label_query(labels, num_groups)
        noisy = self.generate_dn_bbox_query(boxes, num_groups)
        content, noisy = (
            rows.new_zeros(len(counts) * num_denoising, rows.shape[-1])
            .index_copy(0, places, rows)
            .unflatten(0, (len(counts), -1))
            for rows in (content, noisy)
        )
        mask = self.generate_dn_mask(most, num_groups, device=content.device)
        layout = dict(
            num_denoising_queries=num_denoising,
            num_denoising_groups=num_groups,
            positives=positives,
        )
        return content, noisy, mask, layout

    def _select(self, count: int) -> Tensor:
        """(n,) which boxes of an image are denoised: all, or a random selection of the most."""
        if not self.dynamic_dn_groups or count <= self.num_dn_queries:
            return torch.arange(count)
        return torch.randperm(count)[: self.num_dn_queries].sort().values

    def generate_dn_label_query(self, gt_labels: Tensor, num_groups: int) -> Tensor:
        """Embeddings of labels of which ``label_noise_scale / 2`` were drawn anew.

        Arguments are the parent's; the result is (2 * num_groups * all_gts, dim), copy after copy
        of the batch's labels.
        """
        labels = gt_labels.repeat(2 * num_groups)
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise_scale * 0.5
        others = torch.randint_like(labels, self.num_classes)
        return self.label_embedding(torch.where(replaced, others, labels))

    def generate_dn_mask(
        self, max_num_target: int, num_groups: int, device: torch.device
    ) -> Tensor:
        """The parent's, which writes to it group by group, at once; arguments are the same.

        (num_denoising + num_queries, the same) bool: no query sees a denoising query of another
        group; those that are matched, which come last, are the last group.
        """
        in_group = 2 * max_num_target
        query = torch.arange(in_group * num_groups + self.num_matching_queries, device=device)
        group = (query // max(in_group, 1)).clamp(max=num_groups if in_group else 0)
        return (group[:, None] != group) & (query < in_group * num_groups)
