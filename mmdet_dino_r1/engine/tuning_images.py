"""Annotated images as far as prompts have no part in them, encoded once where there is room."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..structures import BatchBoxes


class EncodedExemplars(NamedTuple):
    """The exemplars of one image, on the CPU.

    Attributes:
        embeddings: (num_exemplars, dim).
        box_sets: as in :class:`ExemplarChoice`.
        rows: (num_exemplars,) long, the row of the bank that each belongs to.
    """

    embeddings: Tensor
    box_sets: Tensor | None
    rows: Tensor


@dataclass
class TuningImage:
    """One image, by itself.

    Attributes:
        image: what ``DINOR1.encode_image`` gives; without fusion only what comes after it needs.
        decoder_inputs: what ``DINOR1.pre_transformer`` gives for the decoder.
        ground_truth: all boxes of the image, labelled by the rows of the bank.
    """

    image: dict
    decoder_inputs: dict
    ground_truth: BatchBoxes


class TuningImages:
    """The images of a dataset, whose exemplars are encoded on the way.

    Without fusion an image is its memory, so neither backbone nor encoder runs again. With fusion
    it is the neck's features, since the encoder sees the prompts.

    Args:
        model: a ``DINOR1`` in eval mode.
        exemplars: an ``ExemplarDataset`` whose samples have ``gt_instances``.
        rows: (num_labels,) long, for each label of the dataset its row in the bank.
        cache_gib: GiB that features may take; what does not fit is encoded at each use.
        half_cache: keep features in bfloat16, which takes half of that.

    Attributes:
        exemplars: those of each image that has some, by its number.
        labels: of each image the rows of its boxes, (num_boxes,) long, on the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        exemplars: Dataset,
        rows: Tensor,
        cache_gib: float,
        half_cache: bool,
    ) -> None:
        self.model, self.dataset = model, exemplars
        self.rows, self.half_cache = rows, half_cache
        self.exemplars: dict[int, EncodedExemplars] = {}
        self.labels: list[Tensor] = []
        self._kept: dict[int, TuningImage] = {}
        free = cache_gib * 2**30
        for index in range(len(exemplars)):
            packed = self._packed(self._encode(index, first_time=True))
            free -= sum(v.nbytes for v in packed.image.values() if isinstance(v, Tensor))
            if free >= 0:
                self._kept[index] = packed

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def num_kept(self) -> int:
        """Images that need not be encoded again."""
        return len(self._kept)

    def __getitem__(self, index: int) -> TuningImage:
        """Features in float32, kept or encoded anew."""
        if (kept := self._kept.get(index)) is None:
            # as if it had been kept: how much fits changes no result
            kept = self._packed(self._encode(index))
        if not self.half_cache:
            return kept
        image = {
            name: value.float()
            if torch.is_tensor(value) and value.dtype == torch.bfloat16
            else value
            for name, value in kept.image.items()
        }
        return replace(kept, image=image)

    def _packed(self, features: TuningImage) -> TuningImage:
        image = dict(features.image)
        if 'memory' in image:  # all that later stages read; of the others they ask the device
            image |= dict(feat=image['memory'][:, :1], feat_pos=None)
        if self.half_cache:
            for name in ('feat', 'feat_pos', 'memory'):
                if image.get(name) is not None:
                    image[name] = image[name].bfloat16()
        return replace(features, image=image)

    @torch.no_grad()
    def _encode(self, index: int, first_time: bool = False) -> TuningImage:
        model = self.model
        data = model.data_preprocessor(pseudo_collate([self.dataset[index]]), False)
        samples = data['data_samples']
        ground_truth = samples[0].gt_instances
        ground_truth.labels = self.rows.to(ground_truth.labels.device)[ground_truth.labels]
        targets = BatchBoxes.read(samples)
        encoder_inputs, decoder_inputs = model.pre_transformer(
            model.extract_feat(data['inputs']), samples
        )
        image = model.encode_image(encoder_inputs)
        if first_time:
            self.labels.append(targets.candidates.labels)
        if first_time and len(samples[0].prompt_instances):
            joint = model.prompt_encoder.joint
            choice = BatchBoxes.read(samples, 'prompt_instances', joint).chosen()
            embeddings = model.encode_exemplars(image, choice).float().cpu()
            rows = self.rows[choice.labels]
            self.exemplars[index] = EncodedExemplars(embeddings, choice.box_sets, rows)
        return TuningImage(image, decoder_inputs, targets)
