"""The boxes of one batch: normalised once, for every stage that needs them.

Shapes: bs, num_boxes (of all images, one image after the other), num_exemplars (see
``exemplar_choice.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ..utils.device_copy import box_scales, to_device
from .exemplar_choice import ExemplarChoice


class Candidates(NamedTuple):
    """Boxes, or exemplars that are drawn from, image by image; on the CPU.

    Attributes:
        labels: (n,) long.
        image_index: (n,) long, the image each lies in.
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
        joint: the boxes of a class on one image are one exemplar; else each is one.
    """

    pixels: Tensor
    corners: Tensor
    labels: Tensor
    img_shapes: Sequence[tuple[int, int]]
    candidates: Candidates
    joint: bool = False

    @classmethod
    def read(
        cls,
        batch_data_samples: SampleList,
        instances: str = 'gt_instances',
        joint: bool = False,
    ) -> BatchBoxes:
        """Ask the device for the labels: the only wait in what a step sets up.

        Args:
            batch_data_samples: with ``bboxes`` (x1, y1, x2, y2) in pixels of the network input
                and ``labels``; ``img_shape`` is the unpadded input's (h, w).
            instances: name of the instances that carry them.
            joint: whether the prompt encoder is; see the attribute.
        """
        found = [getattr(sample, instances) for sample in batch_data_samples]
        img_shapes = [tuple(sample.img_shape[:2]) for sample in batch_data_samples]
        labels = torch.cat([of_image.labels for of_image in found])
        image_index = [torch.full((len(of_image),), i) for i, of_image in enumerate(found)]
        candidates = Candidates(labels.cpu(), torch.cat(image_index), len(found))
        scales = box_scales(img_shapes, labels.device)
        corners = [of_image.bboxes / scale for of_image, scale in zip(found, scales, strict=True)]
        pixels = torch.cat([of_image.bboxes for of_image in found])
        return cls(pixels, torch.cat(corners), labels, img_shapes, candidates, joint)

    @cached_property
    def boxes(self) -> Tensor:
        """(num_boxes, 4) normalised (cx, cy, w, h), relative to the unpadded image."""
        return bbox_xyxy_to_cxcywh(self.corners)

    @cached_property
    def counts(self) -> list[int]:
        """Boxes of each image."""
        _, image_index, num_images = self.candidates
        return image_index.bincount(minlength=num_images).tolist()

    @property
    def exemplars(self) -> Candidates:
        """All that exemplars may be drawn from; joint ones by ascending label on each image."""
        return self._exemplars_and_sets[0]

    @cached_property
    def _exemplars_and_sets(self) -> tuple[Candidates, Tensor | None]:
        """And (num_boxes,) long, the exemplar that each box is of; None: each box is one."""
        if not self.joint:
            return self.candidates, None
        labels, image_index, num_images = self.candidates
        pairs, sets = torch.stack([image_index, labels]).unique(dim=1, return_inverse=True)
        return Candidates(pairs[1], pairs[0], num_images), sets

    def chosen(self, index: Tensor | None = None) -> ExemplarChoice:
        """Some of the :attr:`exemplars`, the placeholder where there is none.

        ``index`` is (num_local,) long, on the CPU; None: all.
        """
        (labels, *_), sets = self._exemplars_and_sets
        boxes, image_index = self.boxes, self.candidates.image_index
        if len(labels if index is None else index) == 0:
            return ExemplarChoice.placeholder(boxes)
        if index is not None:
            rows = index
            if sets is not None:
                place = torch.full_like(labels, -1)
                place[index] = torch.arange(len(index))
                rows = (place[sets] >= 0).nonzero()[:, 0]
                sets = place[sets[rows]]
            (on_device,) = to_device(boxes.device, rows)
            boxes, labels, image_index = boxes[on_device], labels[index], image_index[rows]
        return ExemplarChoice(image_index, boxes, labels, box_sets=sets)

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
        return replace(
            self,
            pixels=self.pixels[rows],
            corners=self.corners[rows],
            labels=self.labels[rows],
            candidates=Candidates(labels[kept], image_index[kept], num_images),
        )
