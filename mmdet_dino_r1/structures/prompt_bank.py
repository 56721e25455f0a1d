"""Prompts kept for later: one embedding per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptBank:
    """One visual prompt per class, the mean over that class's exemplars.

    Attributes:
        class_names: name of each class, without repetition.
        embeddings: (num_classes, dim).
        provenance: how the bank was made (shots, seed, source split …), for the log.
    """

    class_names: tuple[str, ...]
    embeddings: Tensor
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.embeddings):
            raise ValueError(
                f'A prompt bank of {len(self.class_names)} classes needs as many embeddings, '
                f'got {len(self.embeddings)}.'
            )
        repeated = sorted({name for name in self.class_names if self.class_names.count(name) > 1})
        if repeated:
            raise ValueError(f'Class names appear twice in a prompt bank: {repeated}')

    def __len__(self) -> int:
        return len(self.class_names)

    @classmethod
    def from_exemplars(
        cls,
        class_names: Sequence[str],
        embeddings: Tensor,
        labels: Tensor,
        provenance: dict | None = None,
    ) -> PromptBank:
        """Average exemplars per class (protocol Visual-G).

        Args:
            class_names: of every class, in label order.
            embeddings: (num_exemplars, dim), in any order.
            labels: (num_exemplars,) long.
            provenance: see the class.

        Raises:
            ValueError: a class has no exemplar.
        """
        counts = torch.bincount(labels.cpu(), minlength=len(class_names))
        if (counts == 0).any():
            without = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
            raise ValueError(f'No exemplar for {len(without)} classes: {", ".join(without)}')
        # float64 sums: the mean then does not depend on the order of the images
        sums = embeddings.new_zeros(len(class_names), embeddings.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels.to(embeddings.device), embeddings.double())
        means = sums / counts.to(sums.device)[:, None]
        return cls(tuple(class_names), means.to(embeddings.dtype), provenance or {})

    def aligned_to(self, class_names: Sequence[str]) -> PromptBank:
        """The bank's rows for exactly these classes, in this order, matched by name.

        Raises:
            ValueError: a class is not in the bank; the nearest names are given.
        """
        row = {name: index for index, name in enumerate(self.class_names)}
        missing = [name for name in class_names if name not in row]
        if missing:
            hints = [
                f'{name!r} (nearest: {get_close_matches(name, row, n=1, cutoff=0.0)[0]!r})'
                for name in missing[:10]
            ]
            raise ValueError(
                f'The prompt bank lacks {len(missing)} of {len(class_names)} classes: '
                f'{", ".join(hints)}. Build the bank from a split with the same class names.'
            )
        order = torch.tensor([row[name] for name in class_names], device=self.embeddings.device)
        return PromptBank(tuple(class_names), self.embeddings[order], self.provenance)
