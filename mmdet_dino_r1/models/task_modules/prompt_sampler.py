"""The only place that draws exemplars in training.

Shapes: num_boxes (of all images of the batch), num_exemplars, bs.
Boxes of a choice are normalised (cx, cy, w, h).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ...structures import ExemplarChoice
from ...utils.device_copy import box_scales, to_device
from .prompt_gathering import Candidates, gather_candidates


class BatchBoxes(NamedTuple):
    """The boxes of a batch, image by image, and what the CPU must know of them.

    Attributes:
        boxes: (num_boxes, 4) normalised (cx, cy, w, h), on the samples' device.
        candidates: their labels and images.
    """

    boxes: Tensor
    candidates: Candidates

    @classmethod
    def read(cls, batch_data_samples: SampleList, instances: str = 'gt_instances') -> BatchBoxes:
        """Ask the device for the labels: the only wait in what a step sets up.

        Args:
            batch_data_samples: with ``bboxes`` (x1, y1, x2, y2) in pixels of the network input
                and ``labels``.
            instances: name of the instances that carry them.
        """
        labels = [getattr(sample, instances).labels for sample in batch_data_samples]
        image_index = [torch.full((len(of_image),), i) for i, of_image in enumerate(labels)]
        candidates = Candidates(torch.cat(labels).cpu(), torch.cat(image_index), len(labels))
        return cls(normalised_boxes(batch_data_samples, instances), candidates)

    def all_chosen(self) -> ExemplarChoice:
        """Every box as an exemplar, the placeholder where there is none."""
        if len(self.boxes) == 0:
            return ExemplarChoice.placeholder(self.boxes)
        return ExemplarChoice(self.candidates.image_index, self.boxes, self.candidates.labels)


class Draw(NamedTuple):
    """Exemplars among candidates, class by class; on the CPU.

    Attributes:
        index: (num_exemplars,) long, positions among the candidates.
        serves: (num_exemplars, num_images) bool, see :class:`ExemplarChoice`, or None.
        drops_classes: not all classes have exemplars.
    """

    index: Tensor
    serves: Tensor | None
    drops_classes: bool


@TASK_UTILS.register_module()
class InBatchPromptSampler:
    """Random boxes of each class of the batch (arXiv 2505.24025, training of prompts).

    The classes are those present anywhere in the batch, in ascending order, and every image
    gets all of them as prompts: a class absent from an image is its negative prompt. The
    defaults are the published ones; the options are ours.

    Args:
        exemplars_per_class: K, a prompt is the mean of up to K different boxes of its class.
        prefer_other_image: no image is prompted with its own boxes where that can be helped.
            As published an object is often its own prompt, which testing on other images never
            grants. For each class the boxes are put in random order; an image's prompt is made
            of the first K that lie on *other* images, or, where there are none, of the first K.
            So images without the class, and all images but those of the first K boxes, share
            a prompt.
        max_prompts: at most so many classes per batch, a random selection; None: all. The boxes
            of the others are neither prompts nor targets in that step (see
            :func:`prompted_boxes_only`), so the model is taught nothing where they are but that
            the prompts do not show them.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self,
        exemplars_per_class: int = 1,
        prefer_other_image: bool = False,
        max_prompts: int | None = None,
    ) -> None:
        for name, value in (
            ('exemplars_per_class', exemplars_per_class),
            ('max_prompts', max_prompts),
        ):
            if value is not None and value < 1:
                raise ValueError(f'InBatchPromptSampler.{name} must be at least 1, got {value}')
        self.exemplars_per_class = exemplars_per_class
        self.prefer_other_image = prefer_other_image
        self.max_prompts = max_prompts

    def __call__(self, batch_boxes: BatchBoxes) -> ExemplarChoice:
        """Draw, with PyTorch's global CPU generator.

        Args:
            batch_boxes: the ground truth.

        Returns:
            The exemplars of each class, or the placeholder where the batch has no box.
        """
        boxes, candidates = batch_boxes
        if len(boxes) == 0:
            return ExemplarChoice.placeholder(boxes)
        drawn = self.draw(candidates)
        return ExemplarChoice(
            image_index=candidates.image_index[drawn.index],
            boxes=_at(boxes, drawn.index),
            labels=candidates.labels[drawn.index],
            serves=drawn.serves,
            drops_classes=drawn.drops_classes,
        )

    def across_ranks(self, batch_boxes: BatchBoxes) -> ExemplarChoice:
        """Draw from the batches of all ranks as if they were one, the same on every rank.

        Every box of a class is equally likely, whatever its rank. All ranks must call it.

        Args:
            batch_boxes: this rank's ground truth.

        Returns:
            The exemplars of all ranks, or the placeholder where no rank has a box.
        """
        boxes, candidates = batch_boxes
        joint = gather_candidates(candidates)
        everything = joint.candidates
        if len(everything.labels) == 0:
            return ExemplarChoice.placeholder(boxes)
        drawn = self.draw(everything, torch.Generator().manual_seed(joint.seed))
        index = drawn.index - joint.first_box  # among this rank's boxes
        own = ((index >= 0) & (index < len(boxes))).nonzero()[:, 0]
        if len(own) > 0:
            image_index = candidates.image_index[index[own]]
            own_boxes = _at(boxes, index[own])
        else:
            nothing = ExemplarChoice.placeholder(boxes)
            image_index, own_boxes = nothing.image_index, nothing.boxes
        serves = drawn.serves
        if serves is not None:
            serves = serves[:, joint.first_image : joint.first_image + candidates.num_images]
        return ExemplarChoice(
            image_index=image_index,
            boxes=own_boxes,
            labels=everything.labels[drawn.index],
            serves=serves,
            own=own,
            drops_classes=drawn.drops_classes,
        )

    def draw(self, candidates: Candidates, generator: torch.Generator | None = None) -> Draw:
        """Choose among boxes by their labels and images alone; pure but for the generator.

        Args:
            candidates: at least one box.
            generator: None: PyTorch's global one.
        """
        order = torch.randperm(len(candidates.labels), generator=generator)
        drops_classes = False
        if self.max_prompts is not None:
            classes = candidates.labels.unique()
            drops_classes = len(classes) > self.max_prompts
            kept = classes[torch.randperm(len(classes), generator=generator)[: self.max_prompts]]
            order = order[torch.isin(candidates.labels[order], kept)]
        # class by class, in random order within each
        order = order[candidates.labels[order].argsort(stable=True)]
        _, counts = candidates.labels[order].unique_consecutive(return_counts=True)
        start = (counts.cumsum(0) - counts).repeat_interleave(counts)  # of each box's class
        serves = torch.arange(len(order)) - start < self.exemplars_per_class
        if not self.prefer_other_image:
            return Draw(order[serves], None, drops_classes)

        images = torch.arange(candidates.num_images)
        elsewhere = candidates.image_index[order][:, None] != images  # (num_boxes, num_images)
        # how many boxes of the class, up to and with this one, lie on other images
        so_far = elsewhere.long().cumsum(0)
        so_far = so_far - (so_far - elsewhere.long())[start]
        in_class = so_far[start + counts.repeat_interleave(counts) - 1]
        serves = torch.where(
            in_class > 0, elsewhere & (so_far <= self.exemplars_per_class), serves[:, None]
        )
        used = serves.any(dim=1)
        return Draw(order[used], serves[used], drops_classes)


def prompted_boxes_only(
    batch_data_samples: SampleList, batch_boxes: BatchBoxes, choice: ExemplarChoice
) -> SampleList:
    """The ground truth that matching and denoising may use: boxes whose class has a prompt.

    Args:
        batch_data_samples: left as they are.
        batch_boxes: their ground truth.
        choice: the step's exemplars.

    Returns:
        The same samples where no class was dropped, else copies with fewer ``gt_instances``.
    """
    if not choice.drops_classes:
        return batch_data_samples
    labels, image_index, _ = batch_boxes.candidates
    has_prompt = torch.isin(labels, choice.labels)
    kept = [
        has_prompt[image_index == image].nonzero()[:, 0] for image in range(len(batch_data_samples))
    ]
    samples = []
    for sample, of_image in zip(
        batch_data_samples, to_device(batch_boxes.boxes.device, *kept), strict=True
    ):
        samples.append(sample.new())
        samples[-1].gt_instances = sample.gt_instances[of_image]
    return samples


def normalised_boxes(batch_data_samples: SampleList, instances: str = 'gt_instances') -> Tensor:
    """(num_boxes, 4) pixel (x1, y1, x2, y2) of data samples -> normalised (cx, cy, w, h).

    Args:
        batch_data_samples: their ``img_shape`` is the unpadded input's (h, w).
        instances: name of the instances that carry ``bboxes``.
    """
    boxes = [getattr(sample, instances).bboxes for sample in batch_data_samples]
    scales = box_scales([sample.img_shape for sample in batch_data_samples], boxes[0].device)
    return bbox_xyxy_to_cxcywh(
        torch.cat([of_image / scale for of_image, scale in zip(boxes, scales, strict=True)])
    )


def _at(boxes: Tensor, index: Tensor) -> Tensor:
    """Some of the boxes, by positions on the CPU."""
    return boxes[to_device(boxes.device, index)[0]]
