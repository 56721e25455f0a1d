"""Class names as a language model sees them, computed once and kept in a file.

Layout of the file, version 1. Tensor: ``embeddings`` (num_classes, text_dim). Metadata:
``text_embeddings``, a JSON object with ``version``, ``class_names`` and ``provenance``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..utils.tensor_file import TensorFile
from .named_rows import check_named_rows, with_nearest

HOW_TO_MAKE = 'mim run mmdet_dino_r1 cache_text_embeddings CONFIG --bert NAME_OR_FOLDER --out FILE'
TEXT_FILE = TensorFile(
    key='text_embeddings', name='file of text embeddings', how_to_make=HOW_TO_MAKE
)


@dataclass(frozen=True)
class TextEmbeddings:
    """One frozen embedding per class name.

    Attributes:
        class_names: as the dataset spells them, without repetition.
        embeddings: (num_classes, text_dim).
        provenance: how they were made, in plain JSON values: ``bert``, ``checkpoint``, ``source``,
            ``transformers_version``, ``package_version``.

    Raises:
        ValueError: there is no name, one occurs twice, an embedding is not finite, or there are
            not as many embeddings as names.
    """

    class_names: tuple[str, ...]
    embeddings: Tensor
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_named_rows('file of text embeddings', self.class_names, self.embeddings)

    def __len__(self) -> int:
        return len(self.class_names)

    @property
    def text_dim(self) -> int:
        """Width of the embeddings."""
        return self.embeddings.shape[1]

    def rows_for(self, class_names: Sequence[str]) -> Tensor:
        """(len(class_names), text_dim) for exactly these classes, in this order, by name.

        Raises:
            ValueError: names are missing; the nearest ones and the command that adds them are
                given.
        """
        row = {name: index for index, name in enumerate(self.class_names)}
        if missing := [name for name in class_names if name not in row]:
            raise ValueError(
                f'The text embeddings lack {len(missing)} of {len(class_names)} class names: '
                f'{with_nearest(missing, row)}. Make them for this dataset: {HOW_TO_MAKE}'
            )
        rows = torch.tensor([row[name] for name in class_names], dtype=torch.long)
        return self.embeddings[rows.to(self.embeddings.device)]


def save_text_embeddings(texts: TextEmbeddings, path: str | Path) -> Path:
    """Write ``*.safetensors``, whole or not at all, and make its folder; returns the path.

    Raises:
        OSError: the file cannot be written.
    """
    described = dict(class_names=list(texts.class_names), provenance=texts.provenance)
    return TEXT_FILE.write(path, dict(embeddings=texts.embeddings), described)


def load_text_embeddings(path: str | Path) -> TextEmbeddings:
    """Read a file that :func:`save_text_embeddings` wrote, onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no text embeddings, is truncated, or of a later version.
    """
    return TEXT_FILE.read(path, _texts)


def _texts(tensors: dict[str, Tensor], described: dict) -> TextEmbeddings:
    return TextEmbeddings(
        tuple(described['class_names']), tensors['embeddings'], dict(described['provenance'])
    )
