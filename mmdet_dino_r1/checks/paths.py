"""The paths of a config that a run will open: weights, datasets, metrics, prompts.

Names: cfg, args, stage as of all checks (``preflight.py``), here also 'all'; split = 'train', 'val'
or 'test'.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import NamedTuple

from mmengine.config import Config
from mmengine.utils import is_abs

from ..config.exemplars import prompt_hook
from ..config.mmdet_2 import explain_arguments
from ..config.tested_sets import exemplar_source
from ..config.tree import described, walk

# Splits of which the files are needed.
SPLITS = dict(train=('train', 'val'), test=('test',), all=('train', 'val', 'test'))
# Paths of a dataset that are joined to its data_root as its annotation file is.
_DATASET_FILES = ('ann_file', 'proposal_file', 'label_map_file', 'support')
_LOCAL_BACKENDS = ('local', 'LocalBackend', 'disk', 'HardDiskBackend')


class Needed(NamedTuple):
    """A path that a run will open, joined as mmengine joins it."""

    owner: str  # what opens it: 'train_dataloader.dataset (CocoDataset)', or the group of a member
    key: str  # of the owner: 'ann_file', 'data_prefix.img'
    path: str
    override: str = ''  # for --cfg-options; of a member: the group's key if it can do without
    member: str = ''  # its name in a DatasetGroup


class Member(NamedTuple):
    """A dataset that a loader reads, below its wrappers."""

    key: str  # dotted
    cfg: dict
    owner: str  # this and override as of Needed
    name: str = ''  # in a DatasetGroup
    override: str = ''
    prefix: str = ''  # 'prompts.' of the split that its prompts come from


def needed_paths(cfg: Config, args: argparse.Namespace, stage: str) -> list[Needed]:
    """Every local path that a stage opens."""
    needed, prompts = list(_weights(cfg, args, stage)), []
    for split in SPLITS[stage]:
        for member in datasets_of(cfg, split):
            needed += _files(member)
        needed += metrics(cfg, split)
        if split != 'train' and cfg.get(f'{split}_dataloader'):
            prompts += prompt_files(cfg, split)
    return list(dict.fromkeys(needed + prompts))


def _weights(cfg: Config, args: argparse.Namespace, stage: str) -> Iterator[Needed]:
    """Checkpoints, and a bank, named on the command line or in the config."""
    if _is_local(bank := (cfg.get('model') or {}).get('prompt_bank')):
        yield Needed('prompts to begin with', 'model.prompt_bank', bank, 'model.prompt_bank=FILE')
    if stage == 'test':
        if _is_local(args.checkpoint):
            yield Needed('checkpoint to test', 'checkpoint', args.checkpoint)
        return
    if args.resume is None and _is_local(cfg.get('load_from')):
        yield Needed('weights to start from', 'load_from', cfg.load_from, 'load_from=FILE')
    elif args.resume != 'auto' and _is_local(args.resume):
        yield Needed('checkpoint to continue from', '--resume', args.resume)
    texts = (cfg.get('model') or {}).get('text_alignment') or {}
    path = texts.get('embeddings')
    if _is_local(path) and (os.path.exists(path) or not texts.get('bert')):  # which makes it
        key = 'model.text_alignment.embeddings'
        yield Needed("embeddings of the classes' names", key, path, 'model.text_alignment=None')
    for key, path in walk(cfg.get('model'), 'model'):
        if 'init_cfg' in key and key.endswith('.checkpoint') and _is_local(path):
            yield Needed('weights to start from', key, path, f'{key}=FILE')


def datasets_of(cfg: Config, split: str) -> Iterator[Member]:
    """The innermost datasets of a loader, through all wrappers."""
    return _members(cfg.get(f'{split}_dataloader'), f'{split}_dataloader')


def _members(node: object, key: str) -> Iterator[Member]:
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _members(child, f'{key}.{index}')
    elif isinstance(node, dict):
        if isinstance(node.get('datasets'), dict):
            yield from _members_of_group(node, key)
        elif inner := [name for name in ('dataset', 'datasets') if node.get(name)]:
            for name in inner:
                yield from _members(node[name], f'{key}.{name}')
        else:
            yield Member(key, node, described(key, node))


def _members_of_group(group: dict, key: str) -> Iterator[Member]:
    """Those that ``only`` and ``skip_missing`` leave, as ``DatasetGroup`` chooses them."""
    only, common = group.get('only'), group.get('common') or {}
    named = {
        name: {**common, **cfg}
        for name, cfg in group['datasets'].items()
        if cfg is not None and (only is None or name in only)
    }
    there = [
        name
        for name, cfg in named.items()
        if explain_arguments(cfg)  # no path, which is said elsewhere
        or os.path.isfile(os.path.join(cfg.get('data_root') or '', cfg.get('ann_file') or ''))
    ]
    skips, owner = group.get('skip_missing', False), described(key, group)
    override = key if there and not skips else ''
    for name in there if skips and there else named:
        yield Member(f'{key}.datasets.{name}', named[name], owner, name, override)


def _files(member: Member) -> Iterator[Needed]:
    dataset = member.cfg
    root = dataset.get('data_root') or ''
    paths = {name: dataset.get(name) or None for name in _DATASET_FILES}
    prefixes = dataset.get('data_prefix') or {}
    for name, path in (paths | {f'data_prefix.{key}': prefixes[key] for key in prefixes}).items():
        if not isinstance(path, str):
            continue
        joined = os.path.join(root, path) if root and not is_abs(path) else path  # as BaseDataset
        if not _is_local(joined, dataset.get('backend_args')):
            continue
        override = 'data_root=DIR' if joined != path else f'{name}=PATH'
        override = member.override if member.name else f'{member.key}.{member.prefix}{override}'
        yield Needed(member.owner, member.prefix + name, joined, override, member.name)


def metrics(cfg: Config, split: str) -> Iterator[Needed]:
    """Annotation files of metrics, which no data_root moves."""
    for key, node in walk(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        if isinstance(node, dict) and _is_local(node.get('ann_file'), node.get('backend_args')):
            yield Needed(described(key, node), 'ann_file', node['ann_file'], f'{key}.ann_file=FILE')


def explain_dataset_arguments(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """Arguments in mmdet 2's form, of the datasets of a stage or of what prompts are cut from."""
    key, hook = prompt_hook(cfg)
    nodes = [(f'{key}.bank', hook.get('bank'))]
    for split in SPLITS[stage]:
        for where, node, *_ in datasets_of(cfg, split):
            nodes += [(described(where, node), node), (f'{where}.prompts', node.get('prompts'))]
    for owner, node in nodes:
        if isinstance(node, dict) and (said := explain_arguments(node)):
            return f'{owner}: {said}'
    return None


def ready_bank(hook: dict) -> str | None:
    """Path of the prompt bank that a ``PromptBankHook`` loads, None where it builds one."""
    bank = hook.get('bank')
    return bank.get('path') if isinstance(bank, dict) else bank


def exemplars(cfg: Config, member: Member) -> Member | None:
    """The split that the prompts of a tested set are cut from, None where they are from none.

    Raises:
        ValueError: the config names no split for the exemplars.
    """
    key, hook = prompt_hook(cfg)
    if not hook or hook.get('protocol', 'visual_g') != 'visual_g' or ready_bank(hook):
        return None
    bank, own = hook.get('bank') or {}, member.cfg.get('prompts')
    own = own and dict(data_root=member.cfg.get('data_root')) | dict(own)
    source = dict(exemplar_source(bank, cfg, own))
    if bank.get('ann_file') or ('support' in source and not own):
        return Member(f'{key}.bank', source, f'{key}.bank')
    if own:
        return member._replace(cfg=source, prefix='prompts.')
    if 'ann_file' in source:
        return next(datasets_of(cfg, 'train'))._replace(cfg=source)
    train = described('train_dataloader.dataset', cfg.train_dataloader.dataset)
    raise ValueError(
        f'the exemplars cannot come from the training set, which is {train} and not a single '
        'dataset. Set default_hooks.prompt_bank.bank.ann_file (and data_root, data_prefix), or '
        'bank=PATH of a prompt bank.'
    )


def prompt_files(cfg: Config, split: str) -> Iterator[Needed]:
    """What the prompts of validation or test are made of; raises as :func:`exemplars`."""
    key, hook = prompt_hook(cfg)
    bank = hook.get('bank') or {}
    if hook.get('protocol') == 'text':
        texts = (cfg.model.get('text_alignment') or {}).get('embeddings')
        path, name = bank.get('text_embeddings') or texts, 'text_embeddings'
        override = f'{key}.bank.text_embeddings=FILE'
    else:
        path, name, override = ready_bank(hook), 'bank', f'{key}.bank=FILE'
    if hook.get('protocol') != 'visual_i' and _is_local(path):
        yield Needed(described(key, hook), name, path, override)
    for member in datasets_of(cfg, split):
        for item in _files(source) if (source := exemplars(cfg, member)) else ():
            if item.key == 'prompts.support':  # in the folder that the hook names
                place, name = f'{key}.bank', os.path.basename(item.path)
                item = Needed(place, name, item.path, f'{place}.support=PATH')
            yield item


def _is_local(path: object, backend_args: dict | None = None) -> bool:
    """Whether ``path`` is a path on this machine that can be looked for."""
    if not isinstance(path, str) or not path or '://' in path:
        return False
    return (backend_args or {}).get('backend', 'local') in _LOCAL_BACKENDS
