"""Hungarian matching of all decoder layers and images of a step at once.

Shapes: num_layers, bs, num_queries, num_prompts, num_gts (of one image).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...utils.device_copy import box_scales, to_cpu


class Matches(NamedTuple):
    """Matched pairs of all layers and images, layer by layer, as many in each.

    All are (num_pairs,) long, on the CPU. ``image`` counts in the batch, ``query`` among those of
    its layer and image, ``gt`` among the image's boxes.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    gt: Tensor


@TASK_UTILS.register_module()
class BatchedHungarianAssigner(HungarianAssigner):
    """mmdet's ``HungarianAssigner``, split in two so that its cost also serves as reward.

    The same arguments, costs and matching as the parent's, but one cost tensor per image for
    all layers, and one transfer to the CPU for all assignments of a step.
    """

    def cost(
        self,
        logits: Tensor,
        boxes: Tensor,
        gt_instances: Sequence[InstanceData],
        img_shapes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """Match cost of every query with every ground truth of its image; differentiable.

        ``logits`` are (num_layers, bs, num_queries, num_prompts), ``boxes`` (num_layers, bs,
        num_queries, 4) normalised (cx, cy, w, h). ``gt_instances`` have ``bboxes`` (x1, y1, x2, y2)
        in pixels, ``labels`` and one-hot ``positive_maps`` (num_gts, num_prompts); ``img_shapes``
        are (h, w) of the unpadded input. Gives (num_layers, num_queries, num_gts) for each image.
        """
        num_layers, _, num_queries, _ = logits.shape
        costs = []
        scales = box_scales(img_shapes, boxes.device)  # (bs, 4)
        pixels = bbox_cxcywh_to_xyxy(boxes) * scales[:, None]
        for scores, bboxes, gts, img_shape, scale in zip(
            logits.unbind(1), pixels.unbind(1), gt_instances, img_shapes, scales, strict=True
        ):
            predictions = InstanceData(scores=scores.flatten(0, 1), bboxes=bboxes.flatten(0, 1))
            meta = dict(img_shape=tuple(img_shape), scale=scale)
            # an image without boxes has an empty cost; not every match cost of mmdet bears one
            cost = logits.new_zeros(num_layers * num_queries, len(gts))
            for match_cost in self.match_costs if len(gts) else ():
                cost = cost + match_cost(predictions, gts, img_meta=meta)
            costs.append(cost.view(num_layers, num_queries, len(gts)))
        return costs

    @staticmethod
    def match(costs: Sequence[Tensor]) -> Matches:
        """One-to-one matching of least total cost, for each layer and image.

        Takes what :meth:`cost` gives: (num_layers, num_queries, num_gts) for each image.

        Raises:
            FloatingPointError: a cost is not finite (scipy would say "invalid numeric entries").
        """
        on_cpu = to_cpu(*(cost.detach() for cost in costs))  # one transfer for everything
        bad = [str(image) for image, cost in enumerate(on_cpu) if not cost.isfinite().all()]
        if bad:
            raise FloatingPointError(
                f'Match costs are not finite for image {", ".join(bad)} of the batch, from 0 on.'
            )
        pairs = [
            np.stack(np.broadcast_arrays(layer, image, *linear_sum_assignment(of_layer)))
            for layer, of_images in enumerate(zip(*(cost.numpy() for cost in on_cpu), strict=True))
            for image, of_layer in enumerate(of_images)
        ]
        return Matches(*torch.from_numpy(np.concatenate(pairs, axis=1)))
