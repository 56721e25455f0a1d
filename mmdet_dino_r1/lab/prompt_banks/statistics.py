"""What the classes of a prompt bank have in common, and which exemplars stand apart.

Distances are ``1 - cosine``, after the mean over the classes is subtracted (see
``structures/class_directions.py``). An exemplar is compared with the mean of the *other* exemplars
of its class, in which it cannot hide. Similarity is that of the bank's rows, tuned or not; spread
and outliers are told of the exemplars alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ...structures import class_directions, class_means
from ...structures.prompt_bank import BankExemplars, PromptBank

# An exemplar is far when it is this many robust standard deviations (1.4826 * median absolute
# deviation) beyond its class's median distance, …
FAR_DEVIATIONS = 3.0
# … by at least this much, which spares the classes whose exemplars are nearly equal, …
FAR_AT_LEAST = 0.05
FAR_MIN_EXEMPLARS = 4  # … in a class of as many: a median of fewer says nothing.
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Outlier:
    """An exemplar that does not look like the rest of its class."""

    exemplar: int  # its row in bank.exemplars.embeddings
    class_name: str
    image_id: int | str
    file_name: str
    boxes: tuple[tuple[float, ...], ...]  # (x1, y1, x2, y2) each, in pixels of the image file
    distance: float  # to the mean of the class's other exemplars
    usual: float  # median of this distance over the class
    far: bool  # it is far beyond that median, see far_exemplars
    nearer_class: str | None  # one whose mean is nearer than that of its own


@dataclass(frozen=True)
class BankStatistics:
    """Statistics of a bank, class by class in the bank's order; None where it does not tell."""

    counts: Tensor | None  # (num_classes,) exemplars
    spread: Tensor | None  # (num_classes,) mean distance to the others of the class, NaN for one
    similarity: Tensor  # (num_classes, num_classes) cosine between the classes' embeddings
    # (num_classes,) the most similar other class, which is what a class will be confused with, and
    # its cosine; -1 and NaN in a bank of one class
    nearest: Tensor
    nearest_similarity: Tensor
    outliers: tuple[Outlier, ...] | None  # far ones first, the most distant of them first

    @property
    def by_confusability(self) -> list[int]:
        """Rows of the bank, those with the most similar other class first."""
        return self.nearest_similarity.argsort(descending=True, stable=True).tolist()


def bank_statistics(bank: PromptBank) -> BankStatistics:
    """Counts, spread, similarities and outliers of a bank."""
    rows = bank.embeddings.float()
    directions, _ = class_directions(rows)
    similarity = directions @ directions.T  # (num_classes, num_classes)
    nearest, nearest_similarity = nearest_other(similarity)
    exemplars, counts, spread, outliers = bank.exemplars, None, None, None
    if exemplars is not None:
        labels = exemplars.set_labels
        counts = torch.bincount(labels, minlength=len(bank))
        if exemplars.embeddings is not None:
            embeddings = exemplars.embeddings.float()
            # exemplars are compared with their means, which tuned rows no longer are
            directions, common = class_directions(class_means(embeddings, labels, rows))
            centred = embeddings - common
            distances = distances_to_others(centred, labels, counts)
            sums = distances.new_zeros(len(bank)).index_add_(0, labels, distances)
            spread = sums / counts  # NaN where a class has one exemplar or none
            outliers = _find_outliers(bank.class_names, exemplars, centred, distances, directions)
    return BankStatistics(counts, spread, similarity, nearest, nearest_similarity, outliers)


def nearest_other(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Most similar other row of each row of (n, n), and how similar; -1 and NaN without others."""
    others = similarity.clone().fill_diagonal_(-torch.inf)
    values, rows = others.max(dim=1)
    if len(similarity) < 2:
        rows, values = torch.full_like(rows, -1), torch.full_like(values, torch.nan)
    return rows, values


def distances_to_others(embeddings: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """(num_exemplars,) distance to the mean of the others of the same class; NaN without others.

    Of (num_exemplars, dim) centred embeddings, and how often each label occurs.
    """
    sums = embeddings.new_zeros(len(counts), embeddings.shape[1])
    sums.index_add_(0, labels, embeddings)
    others = sums[labels] - embeddings  # not divided: the length does not matter
    distances = 1 - F.cosine_similarity(embeddings, others, dim=1)
    return distances.masked_fill(counts[labels] < 2, torch.nan)


def far_exemplars(distances: Tensor, labels: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Which (num_exemplars,) distances are far for their class, and each one's class median.

    Far is more than ``FAR_DEVIATIONS`` robust standard deviations, and more than
    ``FAR_AT_LEAST``, beyond the median of a class of ``FAR_MIN_EXEMPLARS`` or more.
    """
    far, usual = torch.zeros_like(labels, dtype=torch.bool), torch.full_like(distances, torch.nan)
    for label in labels.unique():
        of_class = labels == label
        usual[of_class] = median = distances[of_class].nanquantile(0.5)
        deviation = (distances[of_class] - median).abs().nanquantile(0.5) * _MAD_TO_DEVIATION
        beyond = max(FAR_DEVIATIONS * deviation, FAR_AT_LEAST)
        far[of_class] = distances[of_class] > median + beyond
    return far & (counts[labels] >= FAR_MIN_EXEMPLARS), usual


def _find_outliers(
    class_names: tuple[str, ...],
    exemplars: BankExemplars,
    centred: Tensor,
    distances: Tensor,
    directions: Tensor,
) -> tuple[Outlier, ...]:
    """Exemplars that are far, or nearer to another class than to their own."""
    labels, members = exemplars.set_labels, exemplars.members
    far, usual = far_exemplars(distances, labels, torch.bincount(labels, minlength=len(directions)))
    to_classes = 1 - F.normalize(centred, dim=1) @ directions.T  # (num_exemplars, num_classes)
    to_classes.scatter_(1, labels[:, None], torch.inf)
    least, nearest = to_classes.min(dim=1)
    nearer = least < distances  # False where the distance is NaN
    rows = (far | nearer).nonzero().flatten().tolist()
    found = [
        Outlier(
            exemplar=row,
            class_name=class_names[labels[row]],
            image_id=exemplars.image_ids[members[row][0]],
            file_name=exemplars.file_names[members[row][0]],
            boxes=tuple(map(tuple, exemplars.boxes[members[row]].tolist())),
            distance=distances[row].item(),
            usual=usual[row].item(),
            far=bool(far[row]),
            nearer_class=class_names[nearest[row]] if nearer[row] else None,
        )
        for row in rows
    ]
    return tuple(sorted(found, key=lambda outlier: (not outlier.far, -outlier.distance)))
