"""Encodes reference images into a prompt bank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import deepcopy

from mmdet.structures import DetDataSample
from torch import nn
from torch.utils.data import Dataset

from ..engine.bank_builder import encode_prompt_bank
from ..structures import PromptBank
from .image_input import ImageReader
from .reference_prompts import Reference


class ReferenceDataset(Dataset):
    """References as an ``ExemplarDataset`` has the images of a file; all are read at once.

    Samples have the boxes drawn as ``prompt_instances`` and, since they are also all that is to be
    found, as ``gt_instances``. Classes come in order of first appearance.

    Args:
        read: makes an image ready for the model.
        references: what was drawn.
        point_size: see :func:`exemplar_boxes`.
        joint: whether all boxes of a class on a reference are one exemplar, else each is one.

    Attributes:
        metainfo: ``classes``, their names.
        class_ids: none, for there are no categories.
        summary: what a bank's provenance says of its exemplars.

    Raises:
        TypeError: a reference is none.
        ValueError: a box or image is unusable.
    """

    class_ids: tuple[int, ...] = ()

    def __init__(
        self, read: ImageReader, references: Sequence[Reference], point_size: float, joint: bool
    ) -> None:
        for ref in references:
            if not isinstance(ref, Reference):
                raise TypeError(
                    f'A reference is Reference(image, boxes, classes), not {type(ref).__name__}.'
                )
        names = tuple(dict.fromkeys(name for ref in references for name in ref.classes))
        self.metainfo = dict(classes=names)
        self._images, self._infos = [], []
        for index, ref in enumerate(references):
            image = read(ref.image, index)
            drawn = image.attach(ref.boxes, ref.classes, names, point_size)
            sample: DetDataSample = image.data['data_samples']
            sample.gt_instances = sample.prompt_instances
            height, width = image.size
            info = dict(img_id=index, file_name=image.name, height=height, width=width)
            labels = sample.prompt_instances.labels.tolist()
            self._infos.append(info | dict(exemplar_labels=labels, exemplar_boxes=drawn.tolist()))
            self._images.append(image.data)
        counts = Counter(
            name for ref in references for name in (set(ref.classes) if joint else ref.classes)
        )
        number = len(references)
        self.summary = dict(
            ann_file='reference images',
            img_prefix='.',  # names are paths as given
            shots=max(counts.values()),
            num_images=number,
            images_in_file=number,
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict:
        data = self._images[index]
        return dict(data, data_samples=deepcopy(data['data_samples']))

    def get_data_info(self, index: int) -> dict:
        """What is known of a reference; ``exemplar_boxes`` (x1, y1, x2, y2) in its own pixels."""
        return dict(self._infos[index])

    def check_images(self) -> None:
        """All are read already."""


def encode_references(
    model: nn.Module,
    read: ImageReader,
    references: Sequence[Reference],
    point_size: float,
    provenance: dict,
) -> PromptBank:
    """Encode each reference's boxes, and average the exemplars of each class.

    ``provenance`` is stated besides what is known here; the errors are :class:`ReferenceDataset`'s.
    """
    exemplars = ReferenceDataset(read, references, point_size, model.prompt_encoder.joint)
    return encode_prompt_bank(model, exemplars, provenance=provenance)
