"""Text embeddings of class names by BERT, which ``cache_text_embeddings`` or a training makes.

BERT reads a name as Grounding DINO has it read names in a long caption: its tokens see one another
and the full stop after it, but no other name, and their positions count from 0. So a name's
embedding, the mean of the last hidden state over its own tokens, is the same in whatever caption.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version

import torch
from mmdet.models.detectors.grounding_dino import clean_label_name
from mmdet.models.language_models import bert as mmdet_bert
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from ..structures import TextEmbeddings, load_text_embeddings, save_text_embeddings
from ..structures.text_embeddings import HOW_TO_MAKE
from ..utils.compat import torch_version
from ..utils.randomness import seeded_on_cpu
from ..version import __version__

# as in Grounding DINO's configs; the full stop separates names
SPECIAL_TOKENS = ['[CLS]', '[SEP]', '.', '?']
_NAMES_AT_ONCE = 64
# 4.56 cannot be imported beside PyTorch 2.1, and takes mmengine with it
_INSTALL = f"pip install 'transformers<{'5' if torch_version() >= (2, 2) else '4.56'}'"


def read_or_make(
    path: str, bert: str | None, class_names: Sequence[str], source: str
) -> TextEmbeddings:
    """Text embeddings of a file, whatever it holds; where there is none, of a training's classes.

    These are made by ``bert``, as of :func:`build_bert`, and kept at ``path``; None: never. A path
    that cannot be written costs a warning. ``source`` says in the file whose names they are. No
    random number of the caller's is drawn.

    Raises:
        FileNotFoundError: there is no file, and none can be made; the reason is told.
        ValueError: the file is broken, or BERT cannot read a name.
    """
    if bert is None or os.path.exists(path):
        return load_text_embeddings(path)
    told = f'There is no {path} yet: embedding {len(class_names)} class names with {bert}'
    print_log(told, logger='current')
    with seeded_on_cpu(0):
        texts = embed(bert_for(path, bert), class_names, bert=bert, checkpoint=None, source=source)
    level = logging.INFO
    try:
        told = f'Text embeddings kept: {save_text_embeddings(texts, path)}'
    except OSError as error:  # a data folder that is full or read-only costs only the time
        level = logging.WARNING
        told = (
            f'The text embeddings were not kept, and the next start makes them again: {error}. '
            'A place that can be written: --cfg-options model.text_alignment.embeddings=FILE'
        )
    print_log(told, logger='current', level=level)
    return texts


def bert_for(path: str, name: str) -> nn.Module:
    """The BERT that makes the missing file ``path``; FileNotFoundError: why it cannot, remedies."""
    try:
        return build_bert(name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"There is no {path}, the embeddings of the classes' names, and it cannot be made "
            f'here: {error}\nOr make the file where BERT is, and copy it: {HOW_TO_MAKE}'
        ) from error


def embed(model: nn.Module, class_names: Sequence[str], **provenance: str | None) -> TextEmbeddings:
    """Names as a model of :func:`build_bert` reads them; raises as :func:`embed_class_names`."""
    versions = dict(transformers_version=version('transformers'), package_version=__version__)
    embeddings = embed_class_names(model, class_names)
    return TextEmbeddings(tuple(class_names), embeddings, provenance | versions)


def as_grounding_dino_reads(name: str) -> str:
    """Without underscores and what stands in parentheses, unless nothing else is left."""
    cleaned = clean_label_name(name)
    return cleaned if cleaned.strip() else name


def names_read_alike(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are the same to BERT, such as 'crab_(food)' and 'crab_(animal)'."""
    groups = defaultdict(list)
    for name in names:
        groups[as_grounding_dino_reads(name).strip().lower()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def build_bert(name: str, checkpoint: str | None = None) -> nn.Module:
    """BERT as Grounding DINO configures it (mmdet's ``BertModel``), in eval mode.

    The ``language_model`` of a Grounding DINO checkpoint, if any, replaces its weights. ValueError:
    transformers is missing or too new, or the checkpoint unlike; OSError: there is no such model.
    """
    if mmdet_bert.AutoTokenizer is None:
        raise ValueError(f'Text embeddings need transformers: {_INSTALL}')
    if int(version('transformers').split('.')[0]) > 4:
        raise ValueError(
            f"mmdet's BertModel needs transformers 4, this is {version('transformers')}: {_INSTALL}"
        )
    try:
        bert = _load(name)
    except (ImportError, OSError, ValueError) as error:  # of transformers, and of the hub
        raise OSError(
            f'{name!r} could be loaded neither from a folder, nor from the Hugging Face hub or its '
            f'cache: {error}\nWithout a network, name a folder that holds config.json, vocab.txt '
            'and the weights: --bert FOLDER, in a training model.text_alignment.bert=FOLDER'
        ) from error
    if checkpoint:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        state = content.get('state_dict', content)
        given = {name.removeprefix('module.'): value for name, value in state.items()}
        own = {f'language_model.{name}': value.shape for name, value in bert.state_dict().items()}
        if lacking := [n for n in own if getattr(given.get(n), 'shape', None) != own[n]]:
            raise ValueError(
                f'The checkpoint has no language model like --bert: {len(lacking)} of {len(own)} '
                f'tensors are missing or have another shape, such as {min(lacking)}.'
            )
        nn.ModuleDict(dict(language_model=bert)).load_state_dict({n: given[n] for n in own})
    return bert.eval()


def _load(name: str) -> nn.Module:
    """From a folder, the hub's cache or the hub, in this order."""
    build = partial(
        mmdet_bert.BertModel,
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=SPECIAL_TOKENS,
    )
    if not os.path.isdir(name):
        # Without a network transformers tries six times for each file, even for those in its cache.
        from huggingface_hub import snapshot_download
        from transformers.utils import TRANSFORMERS_CACHE

        look = partial(snapshot_download, name, cache_dir=TRANSFORMERS_CACHE)
        with suppress(OSError, ValueError):
            return build(look(local_files_only=True))
        look(allow_patterns=['config.json'])
    return build(name)


@torch.no_grad()
def embed_class_names(bert: nn.Module, names: Sequence[str]) -> Tensor:
    """(len(names), text_dim) means over each name's own tokens; ValueError: one has none."""
    device = next(bert.parameters()).device
    special = torch.tensor(bert.special_tokens, device=device)
    embedded = []
    for start in range(0, len(names), _NAMES_AT_ONCE):
        captions = [f'{as_grounding_dino_reads(n)}. ' for n in names[start:][:_NAMES_AT_ONCE]]
        tokens = bert.tokenizer(captions, padding='longest', return_tensors='pt').to(device)
        masks, positions = mmdet_bert.generate_masks_with_special_tokens_and_transfer_map(
            tokens, bert.special_tokens
        )
        inputs = dict(tokens, attention_mask=masks, position_ids=positions)
        hidden = bert.language_backbone(inputs)['embedded']  # (names, tokens, text_dim)
        is_own = tokens['attention_mask'].bool() & ~torch.isin(tokens['input_ids'], special)
        counts = is_own.sum(dim=1, keepdim=True)
        if (counts == 0).any():
            which = names[start + int(counts[:, 0].argmin())]
            raise ValueError(f'The class name {which!r} has no word that BERT could read.')
        embedded.append((hidden * is_own[..., None]).sum(dim=1) / counts)
    return torch.cat(embedded).float().cpu()
