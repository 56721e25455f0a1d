"""The boxes of one batch: normalised once, for every stage that needs them.

Shapes: bs, num_boxes (of all images, one image after the other).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ..utils.device_copy import box_scales, to_device
from .exemplar_choice import ExemplarChoice


class Candidates(NamedTuple):
    """Boxes that exemplars are drawn from, image by image; on the CPU.

    Attributes:
        labels: (num_boxes,) long.
        image_index: (num_boxes,) long, the image each box lies in.
        num_images: images with and without boxes.
    """

    labels: Tensor
    image_index: Tensor
    num_images: int


@dataclass(frozen=True)
class BatchBoxes:
    """Boxes with classes, on the samples' device, and what the CPU must know of them.

    Attributes:
        pixels: (num_boxes, 4) (x1, y1, x2, y2) in pixels of the network input.
        corners: (num_boxes, 4) the same normalised, relative to the unpadded image.
        labels: (num_boxes,) long.
        img_shapes: (h, w) of each image, unpadded.
        candidates: labels and images of the boxes on the CPU.
    """

    pixels: Tensor
    corners: Tensor
    labels: Tensor
    img_shapes: Sequence[tuple[int, int]]
    candidates: Candidates

    @classmethod
    def read(cls, batch_data_samples: SampleList, instances: str = 'gt_instances') -> BatchBoxes:
        """Ask the device for the labels: the only wait in what a step sets up.

        Args:
            batch_data_samples: with ``bboxes`` (x1, y1, x2, y2) in pixels of the network input
                and ``labels``; ``img_shape`` is the unpadded input's (h, w).
            instances: name of the instances that carry them.
        """
        found = [getattr(sample, instances) for sample in batch_data_samples]
        img_shapes = [tuple(sample.img_shape[:2]) for sample in batch_data_samples]
        labels = torch.cat([of_image.labels for of_image in found])
        image_index = [torch.full((len(of_image),), i) for i, of_image in enumerate(found)]
        candidates = Candidates(labels.cpu(), torch.cat(image_index), len(found))
        scales = box_scales(img_shapes, labels.device)
        corners = [of_image.bboxes / scale for of_image, scale in zip(found, scales, strict=True)]
        pixels = torch.cat([of_image.bboxes for of_image in found])
        return cls(pixels, torch.cat(corners), labels, img_shapes, candidates)

    @cached_property
    def boxes(self) -> Tensor:
        """(num_boxes, 4) normalised (cx, cy, w, h), relative to the unpadded image."""
        return bbox_xyxy_to_cxcywh(self.corners)

    @cached_property
    def counts(self) -> list[int]:
        """Boxes of each image."""
        _, image_index, num_images = self.candidates
        return image_index.bincount(minlength=num_images).tolist()

    def chosen(self, index: Tensor | None = None) -> ExemplarChoice:
        """Some of the boxes as exemplars, the placeholder where there is none.

        ``index`` is (num_local,) long, on the CPU; None: all boxes.
        """
        boxes, (labels, image_index, _) = self.boxes, self.candidates
        if len(labels if index is None else index) == 0:
            return ExemplarChoice.placeholder(boxes)
        if index is not None:
            (rows,) = to_device(boxes.device, index)
            boxes, labels, image_index = boxes[rows], labels[index], image_index[index]
        return ExemplarChoice(image_index, boxes, labels)

    def prompted(self, choice: ExemplarChoice) -> BatchBoxes:
        """What matching and denoising may use: boxes whose class has a prompt.

        Where all classes have one this is the same object.
        """
        labels, image_index, num_images = self.candidates
        has_prompt = torch.isin(labels, choice.labels)
        if has_prompt.all():
            return self
        kept = has_prompt.nonzero()[:, 0]
        (rows,) = to_device(self.labels.device, kept)
        return BatchBoxes(
            self.pixels[rows],
            self.corners[rows],
            self.labels[rows],
            self.img_shapes,
            Candidates(labels[kept], image_index[kept], num_images),
        )
