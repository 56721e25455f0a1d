"""The only place that draws exemplars in training.

Shapes: num_boxes (ground truth of the batch), num_exemplars, bs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ...structures import ExemplarChoice
from .prompt_gathering import Candidates, gather_candidates


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

    def __call__(self, batch_data_samples: SampleList) -> ExemplarChoice:
        """Draw, with PyTorch's global CPU generator.

        Args:
            batch_data_samples: with ``gt_instances.bboxes`` (x1, y1, x2, y2) in pixels of the
                network input and ``gt_instances.labels``.

        Returns:
            The exemplars of each class, or the placeholder where the batch has no box.
        """
        boxes, candidates = _candidates_of(batch_data_samples)
        if len(boxes) == 0:
            return ExemplarChoice.placeholder(boxes)
        drawn = self.draw(candidates)
        return ExemplarChoice(
            image_index=candidates.image_index[drawn.index],
            boxes=boxes[drawn.index.to(boxes.device)],
            labels=candidates.labels[drawn.index],
            serves=drawn.serves,
            drops_classes=drawn.drops_classes,
        )

    def across_ranks(self, batch_data_samples: SampleList) -> ExemplarChoice:
        """Draw from the batches of all ranks as if they were one, the same on every rank.

        Every box of a class is equally likely, whatever its rank. All ranks must call it.

        Args:
            batch_data_samples: this rank's, as in :meth:`__call__`.

        Returns:
            The exemplars of all ranks, or the placeholder where no rank has a box.
        """
        boxes, candidates = _candidates_of(batch_data_samples)
        joint = gather_candidates(candidates)
        everything = joint.candidates
        if len(everything.labels) == 0:
            return ExemplarChoice.placeholder(boxes)
        drawn = self.draw(everything, torch.Generator().manual_seed(joint.seed))
        index = drawn.index - joint.first_box  # among this rank's boxes
        own = ((index >= 0) & (index < len(boxes))).nonzero()[:, 0]
        if len(own) > 0:
            image_index = candidates.image_index[index[own]]
            own_boxes = boxes[index[own].to(boxes.device)]
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


def prompted_boxes_only(batch_data_samples: SampleList, choice: ExemplarChoice) -> SampleList:
    """The ground truth that matching and denoising may use: boxes whose class has a prompt.

    Args:
        batch_data_samples: left as they are.
        choice: the step's exemplars.

    Returns:
        The same samples where no class was dropped, else copies with fewer ``gt_instances``.
    """
    if not choice.drops_classes:
        return batch_data_samples
    kept = []
    for sample in batch_data_samples:
        instances = sample.gt_instances
        has_prompt = torch.isin(instances.labels, choice.labels.to(instances.labels.device))
        kept.append(sample.new())
        kept[-1].gt_instances = instances[has_prompt]
    return kept


def normalised_boxes(sample, instances: str = 'gt_instances') -> Tensor:
    """(n, 4) pixel (x1, y1, x2, y2) of a data sample -> normalised (cx, cy, w, h).

    Args:
        sample: ``DetDataSample`` whose ``img_shape`` is the unpadded input's (h, w).
        instances: name of the instances that carry ``bboxes``.
    """
    boxes = getattr(sample, instances).bboxes
    height, width = sample.img_shape[:2]
    return bbox_xyxy_to_cxcywh(boxes / boxes.new_tensor([width, height, width, height]))


def _candidates_of(batch_data_samples: SampleList) -> tuple[Tensor, Candidates]:
    """All boxes of a batch, (num_boxes, 4) normalised, and what is drawn by."""
    boxes = [normalised_boxes(sample) for sample in batch_data_samples]
    # the one wait for the device in this step's set-up: which classes there are
    labels = torch.cat([sample.gt_instances.labels for sample in batch_data_samples]).cpu()
    image_index = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
    return torch.cat(boxes), Candidates(labels, image_index, len(boxes))
