"""Visual prompts, ready to stand where Grounding DINO has text tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..utils.device_copy import to_device
from .prompt_bank import PromptBank

PADDING_LABEL = -1


@dataclass(frozen=True)
class VisualPrompts:
    """One set of prompts per image, padded to the longest.

    Attributes:
        embeddings: (bs, num_prompts, dim).
        labels: (bs, num_prompts) long: the class that each prompt stands for,
            ``PADDING_LABEL`` at padding.
        counts: prompts of each image that are no padding, which come first; None: all are.
        negatives: of each image the labels that are never given out, and the labels of the classes
            that each is a negative of (None: of all); empty where there are none.

    Raises:
        ValueError: the shapes do not belong together.
    """

    embeddings: Tensor
    labels: Tensor
    counts: Sequence[int] | None = None
    negatives: Sequence[Mapping[int, Sequence[int] | None]] = ()

    def __post_init__(self) -> None:
        if self.embeddings.shape[:2] != self.labels.shape:
            raise ValueError(
                f'Prompt embeddings {tuple(self.embeddings.shape)} and labels '
                f'{tuple(self.labels.shape)} do not belong together.'
            )

    def __len__(self) -> int:
        """Prompts per image, padding included."""
        return self.labels.shape[1]

    @property
    def valid(self) -> Tensor:
        """(bs, num_prompts) bool, False at padding prompts."""
        return self.labels != PADDING_LABEL

    @classmethod
    def shared(cls, embeddings: Tensor, labels: Tensor, batch_size: int) -> VisualPrompts:
        """The same classes, with ``labels`` (num_prompts,) long, for all ``batch_size`` images.

        ``embeddings`` are (num_prompts, dim) or, where images have prompts of their own for these
        classes, (bs, num_prompts, dim); on the same device.
        """
        return cls(embeddings.expand(batch_size, -1, -1), labels.expand(batch_size, -1))

    @classmethod
    def padded(cls, embeddings: Sequence[Tensor], labels: Sequence[Tensor]) -> VisualPrompts:
        """Prompts that differ between images, padded to the longest set (at least one).

        Of each image ``embeddings`` are (n_i, dim) and ``labels`` (n_i,) long.
        """
        longest = max(1, *(len(item) for item in labels))
        batch = embeddings[0].new_zeros(len(labels), longest, embeddings[0].shape[-1])
        batch_labels = torch.full(
            (len(labels), longest), PADDING_LABEL, dtype=torch.long, device=batch.device
        )
        for row, (embedding, label) in enumerate(zip(embeddings, labels, strict=True)):
            batch[row, : len(label)] = embedding
            batch_labels[row, : len(label)] = label
        return cls(batch, batch_labels, [len(label) for label in labels])

    @classmethod
    def averaged(
        cls, embeddings: Tensor, labels: Tensor, image_index: Tensor, batch_size: int
    ) -> VisualPrompts:
        """Of each image a prompt for each class it has boxes of: the mean of their embeddings.

        ``embeddings`` are (num_boxes, dim), of any of the ``batch_size`` images. ``labels`` and
        ``image_index``, the image of each box, are (num_boxes,) long, on the CPU.
        """
        # (2, n) the classes of each image, image by image, ascending
        (image, label), prompt, size = torch.stack([image_index, labels]).unique(
            dim=1, return_inverse=True, return_counts=True
        )
        counts = image.bincount(minlength=batch_size)
        longest = max(1, int(counts.max()))
        place = image * longest + torch.arange(len(image)) - (counts.cumsum(0) - counts)[image]
        labels = torch.full((batch_size * longest,), PADDING_LABEL).index_copy(0, place, label)
        sizes = torch.ones(batch_size * longest).index_copy(0, place, size.float())
        place, labels, sizes = to_device(embeddings.device, place[prompt], labels, sizes)
        sums = embeddings.new_zeros(batch_size * longest, embeddings.shape[-1])
        means = sums.index_add(0, place, embeddings) / sizes[:, None].to(embeddings.dtype)
        shape = (batch_size, longest)
        return cls(means.unflatten(0, shape), labels.unflatten(0, shape), counts.tolist())

    @classmethod
    def from_banks(cls, banks: Sequence[PromptBank], like: Tensor) -> VisualPrompts:
        """Each image's prompts from its prompt bank, all copied to the device at once.

        ``like``, of any shape, has the dtype and device that the prompts should have.
        """
        used = {id(bank): bank for bank in banks}
        parts = [p for bank in used.values() for p in (bank.embeddings.cpu(), bank.label_tensor)]
        copied = to_device(like.device, *parts)
        rows = {
            key: (embeddings.to(like.dtype), labels)
            for key, embeddings, labels in zip(used, copied[::2], copied[1::2], strict=True)
        }
        if len(rows) == 1:
            prompts = cls.shared(*rows.popitem()[1], len(banks))
        else:
            prompts = cls.padded(*zip(*(rows[id(bank)] for bank in banks), strict=True))
        return replace(prompts, negatives=[bank.negative_labels for bank in banks])

    def chunks(self, size: int) -> list[VisualPrompts]:
        """Split along the prompts into chunks of at most ``size`` (0 or less: one chunk)."""
        if size <= 0 or size >= len(self):
            return [self]
        chunks = zip(self.embeddings.split(size, 1), self.labels.split(size, 1), strict=True)
        return [
            VisualPrompts(
                *chunk, self.counts and [min(max(n - size * i, 0), size) for n in self.counts]
            )
            for i, chunk in enumerate(chunks)
        ]

    def as_text_dict(self) -> dict[str, Tensor]:
        """What ``forward_encoder`` expects of Grounding DINO's language model.

        The only place that knows the parent's keys. An image without any prompt keeps its first
        padding token visible, since attention over nothing is NaN; its label stays
        ``PADDING_LABEL`` and the head drops it.
        """
        token_mask = self.valid
        first = torch.zeros_like(token_mask)
        first[:, 0] = True
        token_mask = token_mask | (first & ~token_mask.any(dim=1, keepdim=True))
        return dict(embedded=self.embeddings, text_token_mask=token_mask)
