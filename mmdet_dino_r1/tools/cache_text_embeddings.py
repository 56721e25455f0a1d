"""Text embeddings of class names, in a file: ``mim run mmdet_dino_r1 cache_text_embeddings``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict

from mmdet_dino_r1.checks.paths import datasets_of
from mmdet_dino_r1.config.loading import load_config
from mmdet_dino_r1.engine.text_embedding import build_bert, embed, names_read_alike
from mmdet_dino_r1.structures import save_text_embeddings
from mmdet_dino_r1.structures.coco_file import parse_coco
from mmdet_dino_r1.utils.command_line import (
    add_cfg_options,
    add_out_file,
    one_line_errors,
    refuse_existing,
)


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
    checkpoint = options.checkpoint and Path(options.checkpoint).name
    texts = embed(bert, names, bert=options.bert, checkpoint=checkpoint, source=source)
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


if __name__ == '__main__':
    sys.exit(main())
