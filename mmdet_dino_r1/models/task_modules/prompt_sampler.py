"""The only place that draws exemplars in training.

Shapes: num_boxes (of all images of the batch), num_exemplars, bs. Boxes are normalised
(cx, cy, w, h).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...structures import BatchBoxes, Candidates, ExemplarChoice
from ...utils.device_copy import to_device
from .prompt_gathering import gather_candidates


class Draw(NamedTuple):
    """Exemplars among candidates, class by class; on the CPU.

    Attributes:
        index: (num_exemplars,) long, positions among the candidates.
        image_mask: (num_exemplars, num_images) bool, see :class:`ExemplarChoice`, or None.
    """

    index: Tensor
    image_mask: Tensor | None


@TASK_UTILS.register_module()
class InBatchPromptSampler:
    """Random boxes of each class of the batch (arXiv 2505.24025, training of prompts).

    The classes are those present anywhere in the batch, in ascending order, and every image
    gets all of them as prompts: a class absent from an image is its negative prompt. The
    defaults are the published ones; the options are ours.

    For a joint prompt encoder an exemplar is not a box but a class on an image: a random number of
    its boxes there, at least one, all being equally likely (so PET-DINO).

    Args:
        exemplars_per_class: K, a prompt is the mean of up to K different exemplars of its class.
        prefer_other_image: no image is prompted with its own boxes where that can be helped.
            As published an object is often its own prompt, which testing on other images never
            grants. For each class the boxes are put in random order; an image's prompt is made
            of the first K that lie on *other* images, or, where there are none, of the first K.
            So images without the class, and all images but those of the first K boxes, share
            a prompt.
        max_prompts: at most so many classes per batch, a random selection; None: all. The boxes
            of the others are neither prompts nor targets in that step (see
            :meth:`BatchBoxes.prompted`), so the model is taught nothing where they are but that
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
        numbers = dict(exemplars_per_class=exemplars_per_class, max_prompts=max_prompts)
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f'InBatchPromptSampler.{name} must be at least 1, got {value}')
        self.exemplars_per_class = exemplars_per_class
        self.prefer_other_image = prefer_other_image
        self.max_prompts = max_prompts

    def __call__(self, batch_boxes: BatchBoxes) -> ExemplarChoice:
        """Draw, with PyTorch's global CPU generator.

        Gives exemplars of each class, or the placeholder where the batch has no box.
        """
        if len(batch_boxes.labels) == 0:
            return batch_boxes.chosen()
        index, image_mask = self.draw(batch_boxes.exemplars)
        return replace(thinned(batch_boxes.chosen(index)), image_mask=image_mask)

    def across_ranks(self, batch_boxes: BatchBoxes) -> ExemplarChoice:
        """Draw from the batches of all ranks as if they were one, the same on every rank.

        Every exemplar of a class is equally likely, whatever its rank. All ranks must call it, each
        with its own boxes. Gives the exemplars of all, or the placeholder where no rank has a box.
        """
        mine = batch_boxes.exemplars
        everything, first, first_image, seed = gather_candidates(mine)
        if len(everything.labels) == 0:
            return batch_boxes.chosen()
        index, image_mask = self.draw(everything, torch.Generator().manual_seed(seed))
        if image_mask is not None:
            last_image = first_image + mine.num_images
            image_mask = image_mask[:, first_image:last_image]
        labels, index = everything.labels[index], index - first  # among this rank's
        local_indices = ((index >= 0) & (index < len(mine.labels))).nonzero()[:, 0]
        return replace(
            thinned(batch_boxes.chosen(index[local_indices])),
            labels=labels,
            local_indices=local_indices,
            image_mask=image_mask,
        )

    def draw(self, candidates: Candidates, generator: torch.Generator | None = None) -> Draw:
        """Choose among exemplars, at least one, by their labels and images alone.

        Pure but for the generator; None is PyTorch's global one.
        """
        order = torch.randperm(len(candidates.labels), generator=generator)
        if self.max_prompts is not None:
            classes = candidates.labels.unique()
            kept = classes[torch.randperm(len(classes), generator=generator)[: self.max_prompts]]
            order = order[torch.isin(candidates.labels[order], kept)]
        # class by class, in random order within each
        order = order[candidates.labels[order].argsort(stable=True)]
        labels = candidates.labels[order]
        everywhere = torch.ones(len(order), 1, dtype=torch.bool)
        first = first_of_each_class(labels, everywhere, self.exemplars_per_class)
        if not self.prefer_other_image:
            return Draw(order[first[:, 0]], None)

        images = torch.arange(candidates.num_images)
        elsewhere = candidates.image_index[order][:, None] != images  # (num_boxes, num_images)
        first_elsewhere = first_of_each_class(labels, elsewhere, self.exemplars_per_class)
        _, of_class, counts = labels.unique(return_inverse=True, return_counts=True)
        others = torch.zeros(len(counts), len(images)).index_add(0, of_class, elsewhere.float())
        image_mask = torch.where(others[of_class] > 0, first_elsewhere, first)
        used = image_mask.any(dim=1)
        return Draw(order[used], image_mask[used])


def thinned(choice: ExemplarChoice) -> ExemplarChoice:
    """Of each joint exemplar a random number of its boxes, at least one; others as they are.

    Drawn with PyTorch's global CPU generator.
    """
    sets = choice.box_sets
    if sets is None:
        return choice
    counts = sets.bincount()
    kept = (torch.rand(len(counts)) * counts).long() + 1
    order = torch.randperm(len(sets))
    order = order[sets[order].argsort(stable=True)]  # set by set, in random order within each
    rank = torch.arange(len(sets)) - (counts.cumsum(0) - counts)[sets[order]]
    rows = order[rank < kept[sets[order]]].sort().values
    (on_device,) = to_device(choice.local_boxes.device, rows)
    return replace(
        choice,
        local_images=choice.local_images[rows],
        local_boxes=choice.local_boxes[on_device],
        box_sets=sets[rows],
    )


def first_of_each_class(labels: Tensor, eligible: Tensor, most: int) -> Tensor:
    """Which boxes are among the first ``most`` eligible ones of their class, for each image.

    ``labels`` (num_boxes,) long are ascending. ``eligible`` and the result are bool,
    (num_boxes, num_images) or, for all images alike, (num_boxes, 1).
    """
    before = eligible.long().cumsum(0) - eligible.long()  # eligible ones before each box
    start = torch.searchsorted(labels, labels)  # the first box of its class
    return eligible & (before - before[start] < most)
