"""Text embeddings of class names, in a file: ``mim run mmdet_dino_r1 cache_text_embeddings``.

BERT reads a name as Grounding DINO has it read names in a long caption: its tokens see one another
and the full stop after it, but no other name, and their positions count from 0. So a name's
embedding, the mean of the last hidden state over its own tokens, is the same in whatever caption.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from mmdet.models.detectors.grounding_dino import clean_label_name
from mmdet.models.language_models import bert as mmdet_bert
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmdet_dino_r1.checks.paths import datasets_of
from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.structures import TextEmbeddings, save_text_embeddings
from mmdet_dino_r1.structures.coco_file import parse_coco
from mmdet_dino_r1.utils.command_line import (
    add_cfg_options,
    add_out_file,
    one_line_errors,
    refuse_existing,
)
from mmdet_dino_r1.version import __version__

# as in Grounding DINO's configs; the full stop separates names
SPECIAL_TOKENS = ['[CLS]', '[SEP]', '.', '?']
_NAMES_AT_ONCE = 64
_INSTALL = "pip install 'transformers<5'"


@one_line_errors
def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='cache_text_embeddings',
        description='Embed class names with BERT, once, into a file.',
    )
    add = parser.add_argument
    add('config', nargs='?', help='config file, or the bare name of a shipped one; not with --ann')
    where = 'name on the Hugging Face hub, or a local folder (default %(default)s)'
    add('--bert', default='bert-base-uncased', help=where)
    own = "a Grounding DINO checkpoint: its own BERT, with --bert's vocabulary and layout"
    add('--checkpoint', help=own)
    add_out_file(parser, '.safetensors')
    add('--split', choices=('train', 'test'), default='train', help='default %(default)s')
    add('--ann', help='COCO- or LVIS-format file whose categories are taken')
    add_cfg_options(parser)
    options = parser.parse_args(args)
    refuse_existing(options)
    bert = build_bert(options.bert, options.checkpoint)
    names, source = _names_and_source(options)
    texts = TextEmbeddings(
        tuple(names),
        embed_class_names(bert, names),
        dict(
            bert=options.bert,
            checkpoint=options.checkpoint and Path(options.checkpoint).name,
            source=source,
            transformers_version=version('transformers'),
            package_version=__version__,
        ),
    )
    save_text_embeddings(texts, options.out)
    print(f'{options.out}: {len(texts)} class names from {source}, width {texts.text_dim}')
    for alike in names_read_alike(names):
        print(f'read alike, and so not told apart by their text: {", ".join(alike)}')
    return 0


def _names_and_source(options: argparse.Namespace) -> tuple[list[str], str]:
    if options.ann:
        coco = parse_coco(Path(options.ann).read_bytes(), options.ann)
        return [category['name'] for category in coco['categories']], options.ann
    if not options.config:
        raise ValueError('Whose class names? Give a config, or --ann FILE.')
    cfg = load_config(options.config, options.cfg_options)
    register_all_modules(init_default_scope=True)
    if not cfg.get(f'{options.split}_dataloader'):
        raise ValueError(f'{options.config} has no {options.split}_dataloader; --ann FILE will do.')
    names = list(dict.fromkeys(class_names_of(cfg, options.split)))
    return names, f'{Path(options.config).stem} ({options.split})'


def class_names_of(cfg: ConfigDict, split: str) -> list[str]:
    """Class names of a split, dataset by dataset, in label order; ValueError: one has none."""
    names = []
    for member in datasets_of(cfg, split):
        args = {key: value for key, value in member.cfg.items() if key != 'prompts'}
        dataset = DATASETS.build(dict(args, lazy_init=True))
        if not (found := dataset.metainfo.get('classes')):
            where = getattr(dataset, 'ann_file', '')
            lacking = f', since {where} is not there' if where and not Path(where).exists() else ''
            raise ValueError(f'{args["type"]} has no class names{lacking}; --ann FILE will do.')
        names += found
    return names


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
        bert = mmdet_bert.BertModel(
            name,
            pad_to_max=False,
            use_sub_sentence_represent=True,
            special_tokens_list=SPECIAL_TOKENS,
        )
    except (OSError, ValueError) as error:  # of the hub, and of a path that is not there
        raise OSError(
            f'{error}\nWithout a network, name a folder that holds config.json, vocab.txt and '
            'the weights: --bert FOLDER'
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


if __name__ == '__main__':
    sys.exit(main())
