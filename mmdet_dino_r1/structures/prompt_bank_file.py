"""Prompt banks as files.

Layout. Tensors: ``embeddings`` (num_classes, dim); where the exemplars are recorded also
``exemplar_labels`` (num_boxes,), ``exemplar_boxes`` (num_boxes, 4) and maybe
``exemplar_embeddings`` (num_exemplars, dim). Metadata: ``prompt_bank``, a JSON object with
``version``, ``class_names``, ``class_ids``, ``provenance``, ``image_ids`` and ``file_names``.
Version 2 has ``exemplar_sets`` (num_boxes,), too: the exemplar that each box is part of. In
version 1 each box is an exemplar; banks of which that is true are still written so. The second
version may also hold rows that are negatives (``negatives`` of the provenance).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..utils.tensor_file import TensorFile
from .prompt_bank import BankExemplars, PromptBank

BANK_FILE = TensorFile(
    key='prompt_bank',
    name='prompt bank',
    how_to_make='mim run mmdet_dino_r1 build_prompt_bank CONFIG CHECKPOINT --out FILE',
    version=2,
)


def save_prompt_bank(bank: PromptBank, path: str | Path) -> Path:
    """Write ``*.safetensors``, whole or not at all, and make its folder; returns the path.

    Raises:
        OSError: the file cannot be written.
    """
    tensors, version = dict(embeddings=bank.embeddings), 1
    described = dict(
        class_names=bank.class_names, class_ids=bank.class_ids, provenance=bank.provenance
    )
    if bank.exemplars is not None:
        tensors['exemplar_labels'] = bank.exemplars.labels
        tensors['exemplar_boxes'] = bank.exemplars.boxes
        if bank.exemplars.embeddings is not None:
            tensors['exemplar_embeddings'] = bank.exemplars.embeddings
        if bank.exemplars.sets is not None:  # earlier packages would count boxes: they refuse it
            tensors['exemplar_sets'], version = bank.exemplars.sets, 2
        described |= dict(image_ids=bank.exemplars.image_ids, file_names=bank.exemplars.file_names)
    if bank.negatives:  # earlier packages would give them out
        version = 2
    return BANK_FILE.write(path, tensors, described, version)


def load_prompt_bank(path: str | Path) -> PromptBank:
    """Read a file that :func:`save_prompt_bank` wrote, onto the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no prompt bank, truncated, of a later version, or has no class.
    """
    return BANK_FILE.read(path, _bank)


def _bank(tensors: dict[str, Tensor], described: dict) -> PromptBank:
    exemplars = None
    if 'exemplar_labels' in tensors:
        exemplars = BankExemplars(
            tensors['exemplar_labels'],
            tensors['exemplar_boxes'],
            tuple(described['image_ids']),
            tuple(described['file_names']),
            tensors.get('exemplar_embeddings'),
            tensors.get('exemplar_sets'),
        )
    return PromptBank(
        tuple(described['class_names']),
        tensors['embeddings'],
        dict(described['provenance']),
        tuple(described['class_ids']),
        exemplars,
    )
