"""What mmdet 2 took, and mmdet 3 passes over or stumbles upon, with the form of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .tree import type_name

# Keys of configs. Where what followed is still valid, the new key ends in a dot.
_RENAMED = {
    'checkpoint_config': 'default_hooks.checkpoint.',
    'data.samples_per_gpu': 'train_dataloader.batch_size',
    'data.test': 'test_dataloader.dataset.',
    'data.train': 'train_dataloader.dataset.',
    'data.val': 'val_dataloader.dataset.',
    'data.workers_per_gpu': 'train_dataloader.num_workers',
    'deterministic': 'randomness.deterministic',
    'evaluation.interval': 'train_cfg.val_interval',
    'evaluation': 'val_evaluator.',
    'fp16': 'optim_wrapper.type=AmpOptimWrapper (--amp)',
    'log_config': 'default_hooks.logger.',
    'lr_config': 'param_scheduler',
    'max_epochs': 'train_cfg.max_epochs',
    'optimizer': 'optim_wrapper.optimizer.',
    'optimizer_config.grad_clip': 'optim_wrapper.clip_grad.',
    'resume_from': 'load_from, with resume=True (--resume FILE)',
    'runner': 'train_cfg.',
    'seed': 'randomness.seed',
    'total_epochs': 'train_cfg.max_epochs',
}
# Arguments of datasets and loaders.
KEYS = dict(
    classes='metainfo=dict(classes=…)',
    img_prefix='data_prefix=dict(img=…)',
    samples_per_gpu='batch_size',
    workers_per_gpu='num_workers',
)
# what people call the classes and the palette in metainfo, in small letters
_MEANT = dict.fromkeys(('class', 'class_names', 'classnames', 'categories', 'names'), 'classes')
_MEANT |= dict(classes='classes', palette='palette')


def renamed(option: str) -> str | None:
    """Today's key for one of mmdet 2, dotted, or for a key below it."""
    for old, new in _RENAMED.items():
        if f'{option}.'.startswith(f'{old}.'):
            rest = option[len(old) + 1 :] if new.endswith('.') else ''
            return (new + rest).strip('.')
    return None


def explain_arguments(args: Mapping[str, Any]) -> str | None:
    """What is wrong with ``ann_file``, ``data_prefix`` or ``metainfo``, and the right form.

    ``args`` are those of a dataset with its ``type``, or of a source of exemplars, without.
    """
    ann_file, prefix = args.get('ann_file'), args.get('data_prefix')
    metainfo = args.get('metainfo')
    if isinstance(ann_file, (list, tuple)):
        members = ', '.join(f'dict(common, ann_file={file!r})' for file in ann_file)
        return (
            f'ann_file={list(ann_file)} is a list, and a dataset reads one file. Write '
            f"dict(type='ConcatDataset', datasets=[{members}]), where common = dict(…) has the "
            'other arguments of this dataset.'
        )
    kind = type_name(args)
    needs_folder = kind in ('CocoDataset', 'CocoJsonDataset') or (kind is None and prefix)
    folders = prefix if isinstance(prefix, Mapping) else {}
    lacks_folder = needs_folder and not isinstance(folders.get('img'), str)
    if lacks_folder or isinstance(prefix, (str, list, tuple)):
        right = prefix if isinstance(prefix, str) else folders.get('img_path') or 'images/'
        return f'data_prefix={prefix!r} is no dict(img=…). Write data_prefix=dict(img={right!r}).'
    for key, value in metainfo.items() if isinstance(metainfo, Mapping) else ():
        right = _MEANT.get(str(key).lower(), key)
        if key == right:
            continue
        there = metainfo.get(right)
        if there is None or (key.lower() == right and [*there] != [*(value or ())]):
            return (
                f'metainfo=dict({key}=…) is read by nothing in mmdet 3. '
                f'Write metainfo=dict({right}=…).'
            )
    return None
