"""The paths of a config that a run will open: weights, datasets, metrics, prompts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mmengine.config import Config
from mmengine.utils import is_abs

from ..config.tested_sets import exemplar_source, innermost_dataset

# Paths of a dataset that are joined to its data_root as its annotation file is.
_DATASET_FILES = ('ann_file', 'proposal_file', 'label_map_file')
_LOCAL_BACKENDS = ('local', 'LocalBackend', 'disk', 'HardDiskBackend')


@dataclass(frozen=True)
class Needed:
    """A path that a run will open.

    Attributes:
        owner: dotted config key of what opens it, with its type: 'train_dataloader.dataset
            (CocoDataset)'.
        key: key below the owner: 'ann_file', 'data_prefix.img'.
        path: the path, joined as mmengine joins it.
        override: the config key and value that would move it, for ``--cfg-options``; '' if none.
        member: name of the member of a ``DatasetGroup`` that opens it, '' elsewhere. The owner is
            then the group, and ``override`` the group's key if it could do without this member.
    """

    owner: str
    key: str
    path: str
    override: str = ''
    member: str = ''


@dataclass(frozen=True)
class Member:
    """A dataset that a loader reads, below its wrappers.

    Attributes:
        key: its dotted config key.
        cfg: its config.
        name: its name in a ``DatasetGroup``; '' elsewhere.
        owner: dotted config key of the group, with its type.
        override: dotted config key of the group if it could do without this member, else ''.
    """

    key: str
    cfg: dict
    name: str = ''
    owner: str = ''
    override: str = ''


def weights(cfg: Config, args: argparse.Namespace, stage: str) -> Iterator[Needed]:
    """Checkpoints named on the command line or in the config.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        args: what mmdet's own parser made of the command line.
        stage: 'train' or 'test'.
    """
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
    texts = (cfg.get('model') or {}).get('text_alignment') or {}
    if _is_local(path := texts.get('embeddings')):
        key = 'model.text_alignment.embeddings'
        yield Needed("embeddings of the classes' names", key, path, 'model.text_alignment=None')
    for key, checkpoint in _named(cfg.get('model'), 'checkpoint', 'model'):
        if 'init_cfg' in key and _is_local(checkpoint):
            yield Needed('weights to start from', key, checkpoint, f'{key}=FILE')


def datasets(node: object, key: str) -> Iterator[Needed]:
    """Paths of the datasets that the loader under ``node`` reads; ``key`` is its config key."""
    for member in members(node, key):
        yield from _of_member(member, _one_dataset(member.cfg, member.key))


def members(node: object, key: str) -> Iterator[Member]:
    """The innermost datasets under ``node``, whose config key is ``key``, through all wrappers.

    Of a ``DatasetGroup`` those that ``only`` leaves and, with ``skip_missing``, those that have
    their annotation file; all of them where none has.
    """
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from members(child, f'{key}.{index}')
    elif isinstance(node, dict):
        inner = [name for name in ('dataset', 'datasets') if node.get(name)]
        for name in inner:
            if name == 'datasets' and isinstance(node[name], dict):
                yield from _members_of_group(node, key)
            else:
                yield from members(node[name], f'{key}.{name}')
        if not inner:
            yield Member(key, node)


def _members_of_group(group: dict, key: str) -> Iterator[Member]:
    only, common = group.get('only'), group.get('common') or {}
    named = {
        name: {**common, **cfg}
        for name, cfg in group['datasets'].items()
        if cfg is not None and (only is None or name in only)
    }
    there = {name: cfg for name, cfg in named.items() if _has_annotations(cfg)}
    skips = group.get('skip_missing', False)
    owner = _describe(key, group)
    override = key if there and not skips else ''
    for name, cfg in (there if skips and there else named).items():
        yield Member(f'{key}.datasets.{name}', cfg, name, owner, override)


def _has_annotations(dataset: dict) -> bool:
    """What ``DatasetGroup`` calls present."""
    return os.path.isfile(os.path.join(dataset.get('data_root') or '', dataset.get('ann_file', '')))


def _of_member(member: Member, needed: Iterable[Needed], prefix: str = '') -> Iterator[Needed]:
    """The paths as they stand or, of a member of a group, as the group's."""
    for item in needed:
        if member.name:
            key = f'{prefix}{item.key}'
            item = Needed(member.owner, key, item.path, member.override, member.name)
        yield item


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


def evaluators(node: object, key: str) -> Iterator[Needed]:
    """Annotation files of metrics; these are taken as they stand, without any data_root.

    Args:
        node: config of an evaluator or a metric, or a list of them.
        key: its dotted config key.
    """
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from evaluators(child, f'{key}.{index}')
    elif isinstance(node, dict):
        if node.get('metrics'):
            yield from evaluators(node['metrics'], f'{key}.metrics')
        path = node.get('ann_file')
        if _is_local(path, node.get('backend_args')):
            yield Needed(_describe(key, node), 'ann_file', path, f'{key}.ann_file=FILE')


def prompt_hook(cfg: Config) -> tuple[str, dict] | None:
    """Dotted key and config of the hook that gives the model its prompts, or None."""
    hooks = {f'default_hooks.{name}': hook for name, hook in cfg.get('default_hooks', {}).items()}
    custom = enumerate(cfg.get('custom_hooks') or [])
    hooks |= {f'custom_hooks.{index}': hook for index, hook in custom}
    for key, hook in hooks.items():
        if isinstance(hook, dict) and _type_name(hook) == 'PromptBankHook':
            return key, hook
    return None


def ready_bank(hook: dict) -> str | None:
    """Path of the prompt bank that a ``PromptBankHook`` loads, None where it builds one."""
    bank = hook.get('bank')
    return bank.get('path') if isinstance(bank, dict) else bank


def prompt_bank(cfg: Config, split: str) -> Iterator[Needed]:
    """What the visual prompts of validation or test are made of.

    Args:
        cfg: the config.
        split: 'val' or 'test'.

    Raises:
        ValueError: the config names no split for the exemplars.
    """
    if (found := prompt_hook(cfg)) is None or found[1].get('protocol') == 'visual_i':
        return
    key, hook = found
    bank = hook.get('bank') or {}
    if hook.get('protocol') == 'text':
        texts = bank.get('text_embeddings') or (cfg.model.get('text_alignment') or {}).get(
            'embeddings'
        )
        if _is_local(texts):
            override = f'{key}.bank.text_embeddings=FILE'
            yield Needed(_describe(key, hook), 'text_embeddings', texts, override)
    elif path := ready_bank(hook):
        if _is_local(path):
            yield Needed(_describe(key, hook), 'bank', path, f'{key}.bank=FILE')
    elif bank.get('ann_file'):
        yield from _one_dataset(bank, f'{key}.bank')
    else:
        for member in members(cfg.get(f'{split}_dataloader'), f'{split}_dataloader'):
            if prompts := member.cfg.get('prompts'):
                root = dict(data_root=member.cfg.get('data_root'))
                source = exemplar_source(bank, cfg, root | prompts)
                yield from _of_member(member, _one_dataset(source, member.key), 'prompts.')
            else:
                yield from _training_set(bank, cfg)


def _training_set(bank: dict, cfg: Config) -> Iterator[Needed]:
    """Exemplars from the training set, in a test too."""
    source = exemplar_source(bank, cfg)
    train = innermost_dataset(cfg.train_dataloader.dataset)
    if 'ann_file' not in source:
        raise ValueError(
            'the exemplars cannot come from the training set, which is '
            f'{_describe("train_dataloader.dataset", train)} and not a single dataset. Set '
            'default_hooks.prompt_bank.bank.ann_file (and data_root, data_prefix), or '
            'bank=PATH of a prompt bank.'
        )
    key = 'train_dataloader' + '.dataset' * _depth(cfg.train_dataloader)
    yield from _one_dataset(dict(source, type=train.get('type')), key)


def _depth(node: dict) -> int:
    """How many datasets lie in one another below a loader."""
    return 1 + _depth(node['dataset']) if 'dataset' in node else 0


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
    kind = _type_name(node)
    return f'{key} ({kind})' if kind else key


def _type_name(node: dict) -> str | None:
    kind = node.get('type')
    return getattr(kind, '__name__', kind)


def _is_local(path: object, backend_args: dict | None = None) -> bool:
    """Whether ``path`` is a path on this machine that can be looked for."""
    if not isinstance(path, str) or not path or '://' in path:
        return False
    return (backend_args or {}).get('backend', 'local') in _LOCAL_BACKENDS
