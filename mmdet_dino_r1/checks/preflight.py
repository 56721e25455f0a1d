"""Looks for every file and folder a run will need, before any model is built.

A run that will fail on its annotation file should say so at once, and for all missing paths
together, not one by one after minutes of building. Only local paths are looked at; URLs and
remote storage backends are left to the run itself.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from difflib import get_close_matches

from mmengine.config import Config

from ..engine.sharding import explain_sharding
from .paths import Needed, datasets, evaluators, prompt_bank, prompt_hook, ready_bank, weights

# What to say where the data of a shipped config is missing: part of the path, remedy. The first
# that fits a path is said.
_HOW_TO_GET = {
    'data/coco/annotations/lvis_v1_': (
        'LVIS v1 annotations (lvisdataset.org) belong in data/coco/annotations/; the images are '
        "COCO's train2017/ and val2017/. The minival file is the one that MDETR published."
    ),
    'text_embeddings': (
        'Embed the class names once (needs transformers): mim run mmdet_dino_r1 '
        'cache_text_embeddings CONFIG --bert bert-base-uncased --out FILE; or train without: '
        '--cfg-options model.text_alignment=None'
    ),
    'data/coco/': 'COCO 2017 belongs under data/coco/: annotations/, train2017/, val2017/.',
    'data/Objects365/': 'Objects365 v1 belongs under data/Objects365/Obj365_v1/.',
    'data/odinw/': 'ODinW belongs under data/odinw/, one folder per dataset.',
    'data/shapes/': 'Make the shapes set: mim run mmdet_dino_r1 generate_shapes data/shapes',
    'data/shapes_hard/': (
        'Make the hard shapes set: mim run mmdet_dino_r1 generate_shapes data/shapes_hard '
        '--difficulty hard --image-size 96 --val-images 100 --val-novel-images 100'
    ),
}


def explain_mistake(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What cannot work whatever files there are, with its remedy; None if nothing is wrong.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        args: what mmdet's own parser made of the command line.
        stage: 'train' (its validation included) or 'test'.
    """
    if stage == 'train' and (mistake := explain_sharding(cfg)):
        return mistake
    split = 'val' if stage == 'train' else 'test'
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset', {})
    if mistake := _unknown_member(dataset, f'{split}_dataloader.dataset'):
        return mistake
    if getattr(args, 'tta', False) and (mistake := _refuse_tta(cfg, dataset)):
        return mistake
    try:
        list(prompt_bank(cfg, split))
    except ValueError as error:
        return str(error)
    return None


def find_missing(cfg: Config, args: argparse.Namespace, stage: str) -> list[Needed]:
    """Every needed path that does not exist.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        args: what mmdet's own parser made of the command line.
        stage: 'train' (its validation included) or 'test'.

    Raises:
        ValueError: a mistake that :func:`explain_mistake` puts into words.
    """
    splits = ('train', 'val') if stage == 'train' else ('test',)
    needed = list(weights(cfg, args, stage))
    for split in splits:
        needed += datasets(cfg.get(f'{split}_dataloader'), f'{split}_dataloader')
        needed += evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
    if cfg.get(f'{splits[-1]}_dataloader'):
        needed += prompt_bank(cfg, splits[-1])
    missing = {(item.owner, item.member, item.key, item.path): item for item in needed}
    return [item for item in missing.values() if not os.path.exists(item.path)]


def report_missing(missing: list[Needed], config: str) -> str:
    """All missing paths of a config in one message, then what to do."""
    count = f'{len(missing)} path{"s" if len(missing) > 1 else ""}'
    lines = [f'nothing was started: {count} that {config} needs cannot be found.']
    by_owner = defaultdict(lambda: defaultdict(list))
    for item in missing:
        by_owner[item.owner][item.member or item.key].append(item)
    width = max(len(name) for found in by_owner.values() for name in found)
    for owner, found in by_owner.items():
        lines.append(f'  {owner}')
        lines += [f'    {name:{width}}  {_place(items)}' for name, items in found.items()]
    lines.append(f'Remedy: put the files there (relative paths start at {os.getcwd()})')
    lines += [f'  {remedy}' for remedy in _how_to_get(missing)]
    overrides = {item.override: None for item in missing if item.override and not item.member}
    if overrides:
        lines.append('or say where they are:')
        lines.append('  --cfg-options ' + ' '.join(overrides))
    for group in {item.override: None for item in missing if item.override and item.member}:
        lines.append('or leave them out of the mean, or name the ones to test:')
        lines.append(f'  --cfg-options {group}.skip_missing=True')
        lines.append(f"  --cfg-options {group}.only=\"['NAME','NAME']\"")
    return '\n'.join(lines)


def _place(items: list[Needed]) -> str:
    """The path or, of a member of a group, the folder that is missing or lacks several."""
    paths = [os.path.abspath(item.path) for item in items]
    folder = os.path.commonpath(paths)
    if not os.path.exists(folder):
        return folder
    return f'{folder}: {", ".join(item.key for item in items)}'


def _how_to_get(missing: list[Needed]) -> list[str]:
    """What is known about getting them, each remedy once."""
    paths = [item.path.replace(os.sep, '/') for item in missing]
    fitting = [next((part for part in _HOW_TO_GET if part in path), None) for path in paths]
    return [remedy for part, remedy in _HOW_TO_GET.items() if part in fitting]


def _unknown_member(dataset: dict, key: str) -> str | None:
    """One line on names in ``only`` that the group has not."""
    group, only = dataset.get('datasets'), dataset.get('only')
    if not isinstance(group, dict) or only is None:
        return None
    known = [name for name, member in group.items() if member is not None]
    unknown = [name for name in ([only] if isinstance(only, str) else only) if name not in known]
    if isinstance(only, str) and not unknown:
        return f'{key}.only must be a list: {key}.only="[\'{only}\']"'
    if not unknown:
        return None
    hints = []
    for name in unknown:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hints.append(f'{name!r}' + (f' (near: {", ".join(near)})' if near else ''))
    return (
        f'{key}.only names datasets that the group has not: {", ".join(hints)}. '
        f'It has: {", ".join(known)}'
    )


def _refuse_tta(cfg: Config, dataset: dict) -> str | None:
    """Why ``--tta`` cannot work with this test set and these prompts; None where it can."""
    if dataset.get('datasets'):
        return (
            "--tta works with a single dataset: mmdet's script gives its flipping pipeline to "
            'test_dataloader.dataset as a whole, and a group of datasets has none. Give '
            'test_dataloader.dataset one dataset instead of a group (`only` does not help).'
        )
    found = prompt_hook(cfg)
    if found is None:
        return None
    key, hook = found
    if hook.get('protocol') == 'visual_i':
        return (
            '--tta does not go with protocol visual_i: the boxes that serve as prompts would '
            'not be flipped with the image. Use visual_g with a prompt bank.'
        )
    if ready_bank(hook) is None:
        return (
            '--tta needs a ready prompt bank: reference images would pass through the flips as '
            'well. Build one (mim run mmdet_dino_r1 build_prompt_bank CONFIG CHECKPOINT --out '
            f'FILE) and add --cfg-options {key}.bank=FILE'
        )
    return None
