"""Prompt banks as files: safetensors, which holds numbers and text and runs no code.

Layout, version 1. Tensors: ``embeddings`` (num_classes, dim); where the exemplars are recorded also
``exemplar_labels`` (num_exemplars,), ``exemplar_boxes`` (num_exemplars, 4) and maybe
``exemplar_embeddings`` (num_exemplars, dim). Metadata: ``prompt_bank``, a JSON object with
``version``, ``class_names``, ``class_ids``, ``provenance``, ``image_ids`` and ``file_names``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .prompt_bank import BankExemplars, PromptBank

FORMAT_VERSION = 1
_KEY = 'prompt_bank'


def save_prompt_bank(bank: PromptBank, path: str | Path) -> Path:
    """Write a bank; the file appears whole or not at all.

    Args:
        bank: what to write.
        path: of the file, ``*.safetensors`` by custom; its folder is made.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    tensors = dict(embeddings=bank.embeddings)
    described = dict(
        version=FORMAT_VERSION,
        class_names=list(bank.class_names),
        class_ids=list(bank.class_ids),
        provenance=bank.provenance,
    )
    if bank.exemplars is not None:
        tensors['exemplar_labels'] = bank.exemplars.labels
        tensors['exemplar_boxes'] = bank.exemplars.boxes
        if bank.exemplars.embeddings is not None:
            tensors['exemplar_embeddings'] = bank.exemplars.embeddings
        described['image_ids'] = list(bank.exemplars.image_ids)
        described['file_names'] = list(bank.exemplars.file_names)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(tensors, metadata={_KEY: json.dumps(described)})
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_prompt_bank(path: str | Path) -> PromptBank:
    """Read a bank, on the CPU.

    Args:
        path: of a file that :func:`save_prompt_bank` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no prompt bank, truncated, of a later version, or has no class.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no prompt bank {path}; make one: '
            'mim run mmdet_dino_r1 build_prompt_bank CONFIG CHECKPOINT --out FILE'
        )
    try:
        with safe_open(path, framework='pt') as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f'{path} is not a prompt bank, or only part of one ({error}). '
            'Banks are safetensors files; build it again.'
        ) from error
    if text is None:
        raise ValueError(f'{path} is a safetensors file but not a prompt bank; build one.')
    try:
        described = json.loads(text)
        if described['version'] > FORMAT_VERSION:
            raise ValueError(
                f'format version {described["version"]}, this package reads up to '
                f'{FORMAT_VERSION}; upgrade mmdet_dino_r1.'
            )
        exemplars = None
        if 'exemplar_labels' in tensors:
            exemplars = BankExemplars(
                tensors['exemplar_labels'],
                tensors['exemplar_boxes'],
                tuple(described['image_ids']),
                tuple(described['file_names']),
                tensors.get('exemplar_embeddings'),
            )
        return PromptBank(
            tuple(described['class_names']),
            tensors['embeddings'],
            dict(described['provenance']),
            tuple(described['class_ids']),
            exemplars,
        )
    except KeyError as error:
        raise ValueError(f'{path} is a broken prompt bank: it lacks {error}.') from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f'{path} is a broken prompt bank: {error}') from error
