"""The only place that draws exemplars in training."""

from __future__ import annotations

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ...structures import ExemplarChoice


@TASK_UTILS.register_module()
class InBatchPromptSampler:
    """One random box per class of the batch (arXiv 2505.24025, training of prompts).

    The classes are those present anywhere in the batch on this rank, in ascending order, and
    every image gets all of them as prompts: a class absent from an image is its negative
    prompt.
    """

    def __call__(self, batch_data_samples: SampleList) -> ExemplarChoice:
        """Draw, with PyTorch's global CPU generator.

        Args:
            batch_data_samples: with ``gt_instances.bboxes`` (x1, y1, x2, y2) in pixels of the
                network input and ``gt_instances.labels``.

        Returns:
            One exemplar per class, or the placeholder where the batch has no box.
        """
        boxes = [normalised_boxes(sample) for sample in batch_data_samples]
        all_boxes = torch.cat(boxes)
        if len(all_boxes) == 0:
            return ExemplarChoice.placeholder(all_boxes)
        image_index = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
        # the one wait for the device in this step's set-up: which classes there are
        labels = torch.cat([s.gt_instances.labels for s in batch_data_samples]).cpu()
        classes = labels.unique()
        order = torch.randperm(len(labels))
        # in shuffled order, the first box of each class: uniform over its boxes
        shuffled = labels[order]
        first = (shuffled[None] == classes[:, None]).int().argmax(dim=1)
        chosen = order[first]
        return ExemplarChoice(
            image_index=image_index[chosen],
            boxes=all_boxes[chosen.to(all_boxes.device)],
            labels=classes,
        )


def normalised_boxes(sample, instances: str = 'gt_instances') -> Tensor:
    """(n, 4) pixel (x1, y1, x2, y2) of a data sample -> normalised (cx, cy, w, h).

    Args:
        sample: ``DetDataSample`` whose ``img_shape`` is the unpadded input's (h, w).
        instances: name of the instances that carry ``bboxes``.
    """
    boxes = getattr(sample, instances).bboxes
    height, width = sample.img_shape[:2]
    return bbox_xyxy_to_cxcywh(boxes / boxes.new_tensor([width, height, width, height]))
