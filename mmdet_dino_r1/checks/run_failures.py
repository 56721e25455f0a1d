"""Puts into words how a run has failed where its traceback does not say what to do."""

from __future__ import annotations

import argparse
import errno
import re
import shutil

import torch
from mmengine.config import Config

from ..config.options import READ_AT_TOP
from ..config.tree import registries, walk
from ..engine.hooks.checkpoint_hook import CheckpointNotSaved
from ..utils.checkpoint_fit import UnfitCheckpoint
from ..utils.near_names import near_names
from ..utils.safe_files import WeightsNotLoaded
from .given_files import work_dir_of

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How torch's CPU allocator and its loader say that the memory of the machine was not enough.
_NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", 'not enough memory: you tried')
_WORKER_KILLED = 'is killed by signal'
# What makes a run need less memory, and what it does; those that cost least first.
_AGAIN = 'activations are computed again instead of kept'
_SAVINGS = dict(
    train={
        'model.backbone.with_cp': f'True: {_AGAIN}',
        'model.encoder.num_cp': f'{{layers}}: {_AGAIN}',
        'train_dataloader.batch_size': 'then optim_wrapper.accumulative_counts (now {count}) up, '
        'to keep the total',
        'model.prompt_sampler.max_prompts': 'classes of a batch',
        'model.dn_cfg.group_cfg.num_dn_queries': '',
        'model.num_queries': '',
    },
    test={
        'test_dataloader.batch_size': '',
        'model.test_cfg.chunk_size': 'classes at a time; 0: all',
        'model.num_queries': '',
    },
)
# How mmengine words a `type` it cannot find; runners and schedulers leave the scope out.
_UNKNOWN_TYPE = re.compile(r'^(\S+) is not in the (?:\w+::)?(.+?) registry\.')


def explain_user_error(error: BaseException, cfg: Config) -> str | None:
    """What ended a run where it is the user's to mend and needs no traceback; else None."""
    if isinstance(error, (CheckpointNotSaved, UnfitCheckpoint)):
        return str(error)
    if isinstance(error, WeightsNotLoaded):
        tree = {top: part for top, part in cfg.to_dict().items() if top in READ_AT_TOP}
        keys = [key for key, value in walk(tree, '') if value == error.given]
        return '\n'.join([str(error), *(f'  --cfg-options {key}=FILE' for key in keys)])
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else ''
    if (match := _UNKNOWN_TYPE.match(said)) is None:
        return None
    name, kind = match.groups()
    tree = walk(cfg.to_dict(), '')
    places = [key for key, value in tree if value == name and f'.{key}'.endswith('.type')]
    where = f' ({", ".join(places)})' if places else ''
    known = [registry.module_dict for registry in registries() if registry.name == kind]
    near = near_names(name, set().union(*known), cutoff=0.6)
    hint = f'Did you mean {" or ".join(near)}?' if near else 'Is its module in `custom_imports`?'
    return f"type='{name}'{where} is not registered as a {kind}. {hint}"


def explain_failure(
    error: BaseException, cfg: Config, args: argparse.Namespace, stage: str
) -> str | None:
    """What to change, with the present values; None where the traceback has to do."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        folder = work_dir_of(cfg, args)
        free = shutil.disk_usage(folder).free / 1e6
        again = 'the same command with --resume' if stage == 'train' else 'the same command'
        return (
            f'no room to write: {error.strerror}. Free in {folder}: {free:.1f} MB.\n'
            f'Make room there, or use --work-dir DIR on another disk; then {again}.'
        )
    text = str(error)
    if isinstance(error, RuntimeError) and _WORKER_KILLED in text:
        loader = f'{stage}_dataloader'
        return (
            'a process that loads data was killed, most often because the memory of the machine, '
            'or the shared memory (/dev/shm) of a container, is used up.\nTo need less of it:'
            + _settings(cfg, {f'{loader}.num_workers': '', f'{loader}.batch_size': ''})
        )
    is_cuda = isinstance(error, torch.cuda.OutOfMemoryError)
    if not (is_cuda or isinstance(error, MemoryError) or any(said in text for said in _NO_MEMORY)):
        return None
    where = 'the GPU' if is_cuda else 'the machine'
    said = (
        f'the memory of {where} is not enough. What makes a run need less, with its value now '
        '(--cfg-options KEY=VALUE):'
    )
    said += '\n  --amp  (half precision)' if stage == 'train' and not args.amp else ''
    said += _settings(cfg, _SAVINGS[stage])
    scales = [
        tuple(pair)
        for key, value in walk(cfg.get(f'{stage}_dataloader'), '')
        for pair in {'scale': [value], 'scales': value}.get(key.rpartition('.')[2]) or ()
        if isinstance(pair, (list, tuple))
    ]
    pipeline = f'{stage}_dataloader.dataset.pipeline'
    more = f'\n  {pipeline}  (smaller images; scales up to {max(scales, key=max, default="")})'
    return said + more if scales else said


def _settings(cfg: Config, meanings: dict[str, str]) -> str:
    """A line for each that has a parent in the config: its value, and what it does."""
    values = dict(walk(cfg.to_dict(), ''))
    layers = values.get('model.encoder.num_layers', 'number of layers')
    count = values.get('optim_wrapper.accumulative_counts', 1)
    lines = ''
    for key, meaning in meanings.items():
        if isinstance(values.get(key.rpartition('.')[0]), dict):
            lines += f'\n  {key}={values.get(key, "not set")}'
            lines += f'  ({meaning.format(layers=layers, count=count)})' if meaning else ''
    return lines
