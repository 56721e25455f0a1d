"""Looks for every file and folder a run will need, before any model is built.

A run that will fail on its annotation file should say so at once, and for all missing paths
together, not one by one after minutes of building. Only local paths are looked at; URLs and
remote storage backends are left to the run itself.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.utils import is_abs

# Paths of a dataset that are joined to its data_root as its annotation file is.
_DATASET_FILES = ('ann_file', 'proposal_file', 'label_map_file')
_LOCAL_BACKENDS = ('local', 'LocalBackend', 'disk', 'HardDiskBackend')
# What to say where the data of a shipped config is missing: part of the path, remedy.
_HOW_TO_GET = {
    'data/coco/': 'COCO 2017 belongs under data/coco/: annotations/, train2017/, val2017/.',
    'data/shapes/': 'Make the shapes set: mim run mmdet_dino_r1 generate_shapes data/shapes',
}


@dataclass(frozen=True)
class Needed:
    """A path that a run will open.

    Attributes:
        owner: dotted config key of what opens it, with its type: 'train_dataloader.dataset
            (CocoDataset)'.
        key: key below the owner: 'ann_file', 'data_prefix.img'.
        path: the path, joined as mmengine joins it.
        override: the config key and value that would move it, for ``--cfg-options``; '' if none.
    """

    owner: str
    key: str
    path: str
    override: str = ''


def find_missing(cfg: Config, args: argparse.Namespace, stage: str) -> list[Needed]:
    """Every needed path that does not exist.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        args: what mmdet's own parser made of the command line.
        stage: 'train' (its validation included) or 'test'.
    """
    splits = ('train', 'val') if stage == 'train' else ('test',)
    needed = list(_weights(cfg, args, stage))
    for split in splits:
        needed += _datasets(cfg.get(f'{split}_dataloader'), f'{split}_dataloader')
        needed += _evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
    if cfg.get(f'{splits[-1]}_dataloader'):
        needed += _prompt_bank(cfg)
    missing = {(item.owner, item.key, item.path): item for item in needed}
    return [item for item in missing.values() if not os.path.exists(item.path)]


def report_missing(missing: list[Needed], config: str) -> str:
    """All missing paths in one message, then what to do."""
    count = f'{len(missing)} path{"s" if len(missing) > 1 else ""}'
    lines = [f'nothing was started: {count} that {config} needs cannot be found.']
    width = max(len(item.key) for item in missing)
    owner = None
    for item in missing:
        if item.owner != owner:
            owner = item.owner
            lines.append(f'  {owner}')
        lines.append(f'    {item.key:{width}}  {os.path.abspath(item.path)}')
    lines.append(f'Remedy: put the files there (relative paths start at {os.getcwd()})')
    slashed = [item.path.replace(os.sep, '/') for item in missing]
    for part, remedy in _HOW_TO_GET.items():
        if any(part in path for path in slashed):
            lines.append(f'  {remedy}')
    overrides = list(dict.fromkeys(item.override for item in missing if item.override))
    if overrides:
        lines.append('or say where they are:')
        lines.append('  --cfg-options ' + ' '.join(overrides))
    return '\n'.join(lines)


def _weights(cfg: Config, args: argparse.Namespace, stage: str) -> Iterator[Needed]:
    """Checkpoints named on the command line or in the config."""
    if stage == 'test':
        path = args.checkpoint
        if _is_local(path):
            yield Needed('checkpoint to test', 'checkpoint', path)
        return
    if args.resume is not None and args.resume != 'auto':
        if _is_local(args.resume):
            yield Needed('checkpoint to continue from', '--resume', args.resume)
    elif args.resume is None and _is_local(cfg.get('load_from')):
        yield Needed('weights to start from', 'load_from', cfg.load_from, 'load_from=FILE')
    for key, checkpoint in _named(cfg.get('model'), 'checkpoint', 'model'):
        if 'init_cfg' in key and _is_local(checkpoint):
            yield Needed('weights to start from', key, checkpoint, f'{key}=FILE')


def _datasets(node: object, key: str) -> Iterator[Needed]:
    """Paths of the innermost datasets under ``node``, through wrappers of any kind."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _datasets(child, f'{key}.{index}')
    elif isinstance(node, dict):
        inner = [name for name in ('dataset', 'datasets') if node.get(name)]
        for name in inner:
            yield from _datasets(node[name], f'{key}.{name}')
        if not inner:
            yield from _one_dataset(node, key)


def _one_dataset(dataset: dict, key: str) -> Iterator[Needed]:
    """Paths of one dataset, joined to its ``data_root`` as ``BaseDataset._join_prefix`` does."""
    root = dataset.get('data_root') or ''
    owner = _describe(key, dataset)
    backend = dataset.get('backend_args')
    paths = {name: dataset.get(name) for name in _DATASET_FILES}
    paths = {name: path for name, path in paths.items() if path}
    prefixes = dataset.get('data_prefix') or {}
    paths |= {f'data_prefix.{name}': prefix for name, prefix in prefixes.items()}
    for name, path in paths.items():
        if not isinstance(path, str):
            continue
        joined = os.path.join(root, path) if root and not is_abs(path) else path
        if _is_local(joined, backend):
            override = f'{key}.data_root=DIR' if joined != path else f'{key}.{name}=PATH'
            yield Needed(owner, name, joined, override)


def _evaluators(node: object, key: str) -> Iterator[Needed]:
    """Annotation files of metrics; these are taken as they stand, without any data_root."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _evaluators(child, f'{key}.{index}')
    elif isinstance(node, dict):
        if node.get('metrics'):
            yield from _evaluators(node['metrics'], f'{key}.metrics')
        path = node.get('ann_file')
        if _is_local(path, node.get('backend_args')):
            yield Needed(_describe(key, node), 'ann_file', path, f'{key}.ann_file=FILE')


def _prompt_bank(cfg: Config) -> Iterator[Needed]:
    """What the visual prompts of validation and test are made of."""
    hook = (cfg.get('default_hooks') or {}).get('prompt_bank')
    if not hook:
        return
    key = 'default_hooks.prompt_bank'
    bank = hook.get('bank') or {}
    if isinstance(bank, str):
        if _is_local(bank):
            yield Needed(_describe(key, hook), 'bank', bank, f'{key}.bank=FILE')
    elif bank.get('ann_file'):
        yield from _one_dataset(bank, f'{key}.bank')
    else:  # exemplars come from the training split, in a test too
        yield from _datasets(cfg.get('train_dataloader'), 'train_dataloader')


def _named(node: object, name: str, key: str) -> Iterator[tuple[str, object]]:
    """Values under the key ``name`` anywhere in ``node``, with their dotted keys."""
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for child, value in children:
        if child == name:
            yield f'{key}.{child}', value
        else:
            yield from _named(value, name, f'{key}.{child}')


def _describe(key: str, node: dict) -> str:
    """Dotted key and type: 'val_evaluator (CocoMetric)'."""
    kind = node.get('type')
    kind = getattr(kind, '__name__', kind)
    return f'{key} ({kind})' if kind else key


def _is_local(path: object, backend_args: dict | None = None) -> bool:
    """Whether ``path`` is a path on this machine that can be looked for."""
    if not isinstance(path, str) or not path or '://' in path:
        return False
    return (backend_args or {}).get('backend', 'local') in _LOCAL_BACKENDS
