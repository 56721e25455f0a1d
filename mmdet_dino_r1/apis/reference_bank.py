"""Encodes reference images into a prompt bank."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Encode each reference's boxes, and average the exemplars of each class.

    With a joint prompt encoder all boxes of a class on a reference are one exemplar, else each is
    one. Classes come in order of first appearance; ``provenance`` is stated besides what is known
    here.

    Raises:
        TypeError: a reference is none.
    """
    for reference in references:
        if not isinstance(reference, Reference):
            raise TypeError(
                f'A reference is Reference(image, boxes, classes), not {type(reference).__name__}.'
            )
    names = tuple(dict.fromkeys(name for ref in references for name in ref.classes))
    records = []
    for index, reference in enumerate(references):
        image = read(reference.image, index)
        drawn = image.attach(reference.boxes, reference.classes, names, point_size)
        embeddings, choice = model.encode_reference_images(pseudo_collate([image.data]))
        labels = image.data['data_samples'].prompt_instances.labels
        where = (index,) * len(drawn), (image.name,) * len(drawn)
        encoded = embeddings.float().cpu(), choice.box_sets
        records.append(BankExemplars(labels, drawn, *where, *encoded))
    record = BankExemplars.join(records)
    summary = record.summary(names)
    about = dict(
        ann_file='reference images',
        img_prefix='.',  # names are paths as given
        shots=summary['most'],
        **summary,
        num_images=len(references),
        images_in_file=len(references),
        package_version=__version__,
        **provenance,
    )
    assert record.embeddings is not None  # every reference has some
    bank = PromptBank.from_exemplars(names, record.embeddings, record.set_labels, about)
    return bank.with_exemplars(record)
