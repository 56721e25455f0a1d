"""Prompts shared by all ranks (ours): what is drawn from, and the embeddings.

All ranks know the labels of all boxes and draw from them with one seed, so that they agree
without being told; each encodes the exemplars that lie on its own images, and the embeddings
are exchanged.

Shapes: num_boxes (ground truth), num_exemplars, dim.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from mmengine import dist
from torch import Tensor

from ...structures import Candidates, ExemplarChoice


class JointCandidates(NamedTuple):
    """The boxes, or exemplars, of all ranks as those of one batch, rank by rank.

    Attributes:
        candidates: of all ranks.
        first: where this rank's begin.
        first_image: where this rank's images begin.
        seed: the same on all ranks, for what they draw alike.
    """

    candidates: Candidates
    first: int
    first_image: int
    seed: int


def gather_candidates(candidates: Candidates) -> JointCandidates:
    """Exchange labels; every rank must call it, one without boxes too.

    The seed is rank 0's, from PyTorch's global CPU generator.
    """
    seed = int(torch.randint(2**62, ()))
    ranks = dist.all_gather_object((*candidates, seed))
    labels, image_index, num_images, seeds = zip(*ranks, strict=True)
    firsts = [0, *accumulate(len(of_rank) for of_rank in labels)]
    first_images = [0, *accumulate(num_images)]
    image_index = [of_rank + i for of_rank, i in zip(image_index, first_images, strict=False)]
    joint = Candidates(torch.cat(labels), torch.cat(image_index), first_images[-1])
    me = dist.get_rank()
    return JointCandidates(joint, firsts[me], first_images[me], seeds[0])


def gather_embeddings(embeddings: Tensor, choice: ExemplarChoice) -> Tensor:
    """(num_local, dim) of this rank's exemplars to (num_exemplars, dim) of all ranks'.

    Every rank writes its own rows and leaves zeros in the others'; the sum over ranks is the
    whole. It is differentiable on all ranks: the gradient of an embedding is the sum of what all
    ranks' losses ask of it, which DDP then averages like any other; it is that of the mean over
    ranks of the losses. ``embeddings`` have at least one row, and are given back where nothing is
    shared; ``choice`` is the same on all ranks but for what is local and ``image_mask``.
    """
    if choice.local_indices is None:
        return embeddings
    # of a rank without exemplars the one row is cut off, and still gets a gradient, of 0
    local_rows = embeddings[: len(choice.local_indices)]
    rows = embeddings.new_zeros(len(choice), embeddings.shape[-1])
    rows = rows.index_copy(0, choice.on_device.local_indices, local_rows)
    return SumOverRanks.apply(rows)


class SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over ranks; its gradient is the sum of the ranks' gradients.

    Backward is a collective too. It waits in the same place on all ranks: autograd runs what
    was computed later first, so DDP has by then sent the same buckets everywhere.
    """

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        """Same shape; the same on all ranks."""
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """Same shape; what all ranks' losses ask of this rank's summand."""
        return SumOverRanks.apply(grad)
