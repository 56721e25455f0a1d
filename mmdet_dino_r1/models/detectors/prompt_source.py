"""Where a detector's prompts come from when it does not train: samples that bring them, and banks.

Shapes: bs, num_boxes, num_exemplars, dim.
Names: encoder_inputs = what ``pre_transformer`` returns; batch_data_samples = meta information of
the images and, where they bring prompts, ``prompt_instances``.
"""

from __future__ import annotations

import torch
from mmdet.structures import SampleList
from torch import Tensor

from ...structures import PromptBank, VisualPrompts
from ...utils.device_copy import to_device
from ..task_modules import BatchBoxes


class PromptSource:
    """The part of :class:`DINOR1` that holds prompt banks and gives each image its prompts.

    Attributes:
        prompt_banks: what :meth:`set_prompt_bank` was given, by name of the dataset; None is
            the name of the one for all.
    """

    prompt_banks: dict[str | None, PromptBank]

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
            return
        if bank.dim != self.embed_dims:
            raise ValueError(
                f'The prompt bank has width {bank.dim}, the model needs '
                f'{self.embed_dims}; rebuild the bank with this model.'
            )
        self.prompt_banks[dataset_name] = bank

    @torch.no_grad()
    def encode_reference_images(self, data: dict) -> tuple[Tensor, Tensor]:
        """Encode exemplars of a batch from a data loader (see ``ExemplarDataset``).

        Args:
            data: ``inputs`` and ``data_samples`` with ``prompt_instances``, before the data
                preprocessor.

        Returns:
            (num_exemplars, dim) embeddings and (num_exemplars,) labels, image by image.
        """
        data = self.data_preprocessor(data, False)
        samples = data['data_samples']
        # waits for the labels: before the device is given work
        choice = BatchBoxes.read(samples, 'prompt_instances').all_chosen()
        encoder_inputs, _ = self.pre_transformer(self.extract_feat(data['inputs']), samples)
        return self.encode_exemplars(encoder_inputs, choice), choice.labels

    def prompts_for(self, encoder_inputs: dict, batch_data_samples: SampleList) -> VisualPrompts:
        """Each image's own prompts where the samples carry them, else the bank's.

        Several boxes of a class on one image are averaged.

        Raises:
            RuntimeError: there are neither, or only some samples carry prompts.
        """
        carried = ['prompt_instances' in sample for sample in batch_data_samples]
        if not any(carried):
            return self._prompts_from_banks(encoder_inputs['feat'], batch_data_samples)
        if not all(carried):
            raise RuntimeError('Some images of the batch carry prompt_instances, others do not.')
        boxes = BatchBoxes.read(batch_data_samples, 'prompt_instances')
        embeddings = self.encode_exemplars(encoder_inputs, boxes.all_chosen())
        labels, image_index, batch_size = boxes.candidates
        # the placeholder, where no image has a box, stands for nothing
        return VisualPrompts.averaged(embeddings[: len(labels)], labels, image_index, batch_size)

    def _prompts_from_banks(self, like: Tensor, batch_data_samples: SampleList) -> VisualPrompts:
        """Each image's bank, in the type and on the device of ``like``."""
        names = [sample.get('dataset_name') for sample in batch_data_samples]
        names = [name if name in self.prompt_banks else None for name in names]
        if None in names and self.prompt_bank is None:
            raise RuntimeError(
                'No visual prompts: add PromptBankHook to default_hooks, call '
                'set_prompt_bank(...), or give every data sample prompt_instances.'
            )
        used = {name: bank for name, bank in self.prompt_banks.items() if name in names}
        copied = iter(
            to_device(
                like.device,
                *(part for b in used.values() for part in (b.embeddings.cpu(), b.label_tensor)),
            )
        )
        banks = {name: (next(copied).to(like.dtype), next(copied)) for name in used}
        if len(banks) == 1:
            return VisualPrompts.shared(*banks[names[0]], len(names))
        return VisualPrompts.padded(*zip(*(banks[name] for name in names), strict=True))
