"""Encodes reference images into a prompt bank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.dataset import pseudo_collate
from torch import nn

from ..structures import BankExemplars, PromptBank
from ..version import __version__
from .image_input import ImageReader
from .reference_prompts import Reference


def encode_references(
    model: nn.Module,
    read: ImageReader,
    references: Sequence[Reference],
    point_size: float,
    provenance: dict,
) -> PromptBank:
    """Encode each reference's boxes, and average them by class over all references.

    Classes come in order of first appearance; ``provenance`` is stated besides what is known here.

    Raises:
        TypeError: a reference is none.
    """
    for reference in references:
        if not isinstance(reference, Reference):
            raise TypeError(
                f'A reference is Reference(image, boxes, classes), not {type(reference).__name__}.'
            )
    names = tuple(dict.fromkeys(name for ref in references for name in ref.classes))
    embeddings, rows = [], []
    for index, reference in enumerate(references):
        image = read(reference.image, index)
        drawn = image.attach(reference.boxes, reference.classes, names, point_size)
        encoded, of_image = model.encode_reference_images(pseudo_collate([image.data]))
        embeddings.append(encoded.float().cpu())
        rows += [(*row, index, image.name) for row in zip(of_image.cpu(), drawn, strict=True)]
    labels, boxes, image_ids, file_names = zip(*rows, strict=True)
    every = torch.cat(embeddings)
    record = BankExemplars(torch.stack(labels), torch.stack(boxes), image_ids, file_names, every)
    counts = torch.bincount(record.labels, minlength=len(names)).tolist()
    about = dict(
        ann_file='reference images',
        img_prefix='.',  # names are paths as given
        shots=max(counts),
        fewest=min(counts),
        most=max(counts),
        counts=dict(zip(names, counts, strict=True)),
        num_exemplars=len(record),
        num_images=len(references),
        images_in_file=len(references),
        package_version=__version__,
        **provenance,
    )
    bank = PromptBank.from_exemplars(names, every, record.labels, about)
    return bank.with_exemplars(record)
