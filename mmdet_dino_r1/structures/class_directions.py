"""How alike classes are: by the cosine of their embeddings without what all have in common."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def class_directions(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Directions (num_classes, dim) whose products are cosines, and what was taken off, (dim,).

    That is the mean over the classes: all embeddings of a model share a large part, which confuses
    nothing, but would bring every cosine near 1. Below three classes nothing is taken off, since
    two centred vectors are always opposite.
    """
    embeddings = embeddings.float()
    common = (
        embeddings.mean(dim=0) if len(embeddings) > 2 else embeddings.new_zeros(embeddings.shape[1])
    )
    return F.normalize(embeddings - common, dim=1), common
