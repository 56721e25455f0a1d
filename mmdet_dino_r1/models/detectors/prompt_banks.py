"""A detector's prompts outside training, and the class names that mmdet's tools read off it."""

from __future__ import annotations

from dataclasses import replace

import torch
from mmdet.structures import SampleList
from mmdet.visualization import get_palette
from torch import Tensor

from ...structures import BatchBoxes, ExemplarChoice, PromptBank, VisualPrompts


class PromptBanksMixin:
    """Holds the banks and ``dataset_meta`` that names their classes; encodes drawn prompts.

    Attributes:
        prompt_banks: what :meth:`set_prompt_bank` was given, by name of the dataset; None is
            the name of the one for all.
    """

    embed_dims: int

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.prompt_banks: dict[str | None, PromptBank] = {}
        self.dataset_meta = {}

    @property
    def prompt_bank(self) -> PromptBank | None:
        """The bank for all images that have no other prompts, or None."""
        return self.prompt_banks.get(None)

    def set_prompt_bank(self, bank: PromptBank | None, dataset_name: str | None = None) -> None:
        """Prompts for all images, or those of one dataset, that do not bring their own.

        Args:
            bank: its rows stand for ``bank.labels``; None removes what was set before.
            dataset_name: of the data samples that the bank is for; None: of all others.

        Raises:
            ValueError: the bank was made by a model of another width.
        """
        if bank is None:
            self.prompt_banks.pop(dataset_name, None)
        elif bank.dim != self.embed_dims:
            raise ValueError(
                f'The prompt bank has width {bank.dim}, the model needs '
                f'{self.embed_dims}; rebuild the bank with this model.'
            )
        else:
            self.prompt_banks[dataset_name] = bank
        self._name_classes()

    @property
    def dataset_meta(self) -> dict:
        """Class names in label order, and colours: what mmdet's inference sets and reads.

        While there is a :attr:`prompt_bank`, ``classes`` are its own and ``palette`` has a colour
        for each. That is done in place, since visualizers keep the dict.
        """
        self._name_classes()  # mmdet and PromptBankHook change meta and banks behind our back
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        self._dataset_meta, self._replaced = meta, None

    def _name_classes(self) -> None:
        meta = self._dataset_meta
        if self.prompt_bank is not None:
            if self._replaced is None:
                self._replaced = dict(classes=meta['classes']) if 'classes' in meta else {}
            name_classes(meta, self.prompt_bank)
        elif self._replaced is not None:
            del meta['classes']
            meta |= self._replaced
            self._replaced = None

    def banks_of(self, batch_data_samples: SampleList) -> list[PromptBank]:
        """The bank of each sample; RuntimeError where one has none."""
        names = [sample.get('dataset_name') for sample in batch_data_samples]
        banks = [self.prompt_banks.get(name, self.prompt_bank) for name in names]
        if any(bank is None for bank in banks):
            raise RuntimeError(
                'No visual prompts. With the model in Python: '
                'model.set_prompt_bank(mmdet_dino_r1.load_prompt_bank(FILE)), or DINOR1Inferencer, '
                'which makes them of boxes. For tools that take a config and a checkpoint alone: '
                'model.prompt_bank=FILE in the config. mim train and mim test: PromptBankHook in '
                'default_hooks. Or prompt_instances in every data sample.'
            )
        return banks

    def prompts_for(self, image: dict, batch_data_samples: SampleList) -> VisualPrompts:
        """Each image's own prompts where the samples carry them, else the bank's.

        Several boxes of a class on one image are averaged, or encoded jointly. A sample's
        ``negative_labels``, a dict as in :class:`VisualPrompts`, are those of its own prompts.

        Raises:
            RuntimeError: there are neither, or only some samples carry prompts.
        """
        carried = ['prompt_instances' in sample for sample in batch_data_samples]
        if all(carried):
            boxes = self._drawn_boxes(batch_data_samples)
            embeddings = self.encode_exemplars(image, boxes.chosen())
            # the placeholder, where no image has a box, stands for nothing
            drawn = boxes.exemplars
            prompts = VisualPrompts.averaged(embeddings[: len(drawn.labels)], *drawn)
            negatives = [sample.get('negative_labels', {}) for sample in batch_data_samples]
            return replace(prompts, negatives=negatives)
        if any(carried):
            raise RuntimeError('Some images of the batch carry prompt_instances, others do not.')
        return VisualPrompts.from_banks(self.banks_of(batch_data_samples), image['feat'])

    @torch.no_grad()
    def encode_reference_images(self, data: dict) -> tuple[Tensor, ExemplarChoice]:
        """Encode exemplars of a batch from a data loader (see ``ExemplarDataset``).

        ``data``, before the data preprocessor, has ``inputs`` and ``data_samples`` with
        ``prompt_instances``. Gives (num_exemplars, dim) embeddings, image by image, and the
        exemplars, of all boxes in their order.
        """
        data = self.data_preprocessor(data, False)
        samples = data['data_samples']
        # waits for the labels: before the device is given work
        choice = self._drawn_boxes(samples).chosen()
        encoder_inputs, _ = self.pre_transformer(self.extract_feat(data['inputs']), samples)
        memory_needed = self.prompts_from == 'memory'
        image = self.encode_image(encoder_inputs) if memory_needed else encoder_inputs
        return self.encode_exemplars(image, choice), choice

    def _drawn_boxes(self, samples: SampleList) -> BatchBoxes:
        return BatchBoxes.read(samples, 'prompt_instances', self.prompt_encoder.joint)


def name_classes(meta: dict, bank: PromptBank) -> None:
    """Give ``meta`` the classes of a bank, in label order, and at least as many colours.

    A label that the bank has no prompt for, so that it is never detected, is named ''. A list of
    colours that is too short goes on with mmdet's random ones.
    """
    names = dict(zip(bank.label_tensor.tolist(), bank.class_names, strict=True))
    number = max(names) + 1
    meta['classes'] = tuple(names.get(label, '') for label in range(number))
    try:
        get_palette(meta.get('palette'), number)
    except AssertionError:
        colours = get_palette(meta['palette'], 0)
        meta['palette'] = [*colours, *get_palette('random', number)[len(colours) :]]
