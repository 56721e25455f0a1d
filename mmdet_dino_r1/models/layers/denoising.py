"""DINO's denoising queries without waiting for the device.

Shapes: bs, all_gts (of the batch, as far as they are denoised), most_gts (of its fullest image),
num_groups, num_denoising (2 * most_gts * num_groups), dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.layers import CdnQueryGenerator
from mmdet.structures import SampleList
from torch import Tensor


class DenoisingQueries(CdnQueryGenerator):
    """mmdet's ``CdnQueryGenerator``: the same queries for the same random numbers.

    Differs from the parent (``mmdet/models/layers/transformer/dino_layers.py``) in two ways. Of
    an image with more than ``num_dn_queries`` boxes a random selection of so many is denoised
    (ours); the parent makes two queries of each box at least, however many there are, and the
    attention grows with their square. And how many boxes
    each image has is taken from the samples, where it is known, and labels are replaced by a
    mask, so that no step waits for the device (the parent reads sizes off tensors, twice for
    each image, and asks which labels were chosen).
    """

    def __call__(self, batch_data_samples: SampleList) -> tuple[Tensor, Tensor, Tensor, dict]:
        """Make the denoising queries of a batch.

        Args:
            batch_data_samples: with ``gt_instances.bboxes`` (x1, y1, x2, y2) in pixels of the
                network input and ``gt_instances.labels``.

        Returns:
            (bs, num_denoising, dim) content, (bs, num_denoising, 4) noisy boxes (cx, cy, w, h)
            before the sigmoid, the attention mask (num_denoising + num_queries, the same), True
            where hidden, and the layout: ``num_denoising_queries``, ``num_denoising_groups`` and
            ``denoised``, for each image which of its boxes, ascending, on the CPU.
        """
        boxes, labels, denoised = [], [], []
        for sample in batch_data_samples:
            instances = sample.gt_instances
            denoised.append(self._select(len(instances)))
            if len(denoised[-1]) < len(instances):
                instances = instances[denoised[-1].to(instances.labels.device)]
            height, width = sample.img_shape[:2]
            scale = instances.bboxes.new_tensor([width, height, width, height])
            boxes.append(instances.bboxes / scale)
            labels.append(instances.labels)
        counts = [len(of_image) for of_image in boxes]
        num_groups = self.get_num_groups(max(counts))
        content = self.generate_dn_label_query(torch.cat(labels), num_groups)
        noisy = self.generate_dn_bbox_query(torch.cat(boxes), num_groups)
        content, noisy = (self._lay_out(rows, counts, num_groups) for rows in (content, noisy))
        mask = self.generate_dn_mask(max(counts), num_groups, device=content.device)
        layout = dict(
            num_denoising_queries=2 * max(counts) * num_groups,
            num_denoising_groups=num_groups,
            denoised=denoised,
        )
        return content, noisy, mask, layout

    def _select(self, count: int) -> Tensor:
        """(n,) which boxes of an image are denoised: all, or a random selection of the most."""
        if not self.dynamic_dn_groups or count <= self.num_dn_queries:
            return torch.arange(count)
        return torch.randperm(count)[: self.num_dn_queries].sort().values

    def generate_dn_label_query(self, gt_labels: Tensor, num_groups: int) -> Tensor:
        """Embeddings of labels of which ``label_noise_scale / 2`` were drawn anew.

        Args:
            gt_labels: (all_gts,) long.
            num_groups: of denoising queries.

        Returns:
            (2 * num_groups * all_gts, dim), copy after copy of the batch's labels.
        """
        labels = gt_labels.repeat(2 * num_groups)
        replaced = torch.rand(labels.shape, device=labels.device) < self.label_noise_scale * 0.5
        others = torch.randint_like(labels, self.num_classes)
        return self.label_embedding(torch.where(replaced, others, labels))

    @staticmethod
    def _lay_out(rows: Tensor, counts: Sequence[int], num_groups: int) -> Tensor:
        """(2 * num_groups * all_gts, c), copy after copy -> (bs, num_denoising, c), zero-padded."""
        bs, most = len(counts), max(counts)
        per_image = torch.tensor(counts)
        image = torch.arange(bs).repeat_interleave(per_image)  # (all_gts,)
        slot = torch.arange(len(image)) - (per_image.cumsum(0) - per_image)[image]
        slot = slot + most * torch.arange(2 * num_groups)[:, None]  # (2 * num_groups, all_gts)
        where = (image.repeat(2 * num_groups).to(rows.device), slot.flatten().to(rows.device))
        laid_out = rows.new_zeros(bs, 2 * most * num_groups, rows.shape[-1])
        laid_out[where] = rows
        return laid_out
