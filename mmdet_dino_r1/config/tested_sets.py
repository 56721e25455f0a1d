"""Which datasets a loader tests, and where each one's exemplars come from."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from mmengine.config import ConfigDict
from torch.utils.data import Dataset

# of PromptBankHook's `bank`: those that name the split
SPLIT_KEYS = ('data_root', 'ann_file', 'data_prefix', 'match', 'support')


def exemplar_source(bank: dict, cfg: ConfigDict, source: dict | None = None) -> dict:
    """The split that exemplars come from, as arguments of ``ExemplarDataset``, and ``match``.

    An ``ann_file`` in the hook's ``bank`` decides, else the ``prompts`` of a group's member
    (``source``), else the training set; ValueError where there is none. A ``support`` in ``bank``
    stands in for the ``ann_file`` alone, which is then left out: a list of exemplars or, for a
    group, the folder of those that its members name (``prompts.support``).
    """
    named = {key: bank[key] for key in SPLIT_KEYS if key in bank}
    support = named.pop('support', None)
    if 'ann_file' not in named and not (support and 'data_prefix' in named):
        if source is None:
            if not cfg.get('train_dataloader'):
                raise ValueError(
                    'The config names no split for the exemplars: it has no train_dataloader. Set '
                    'default_hooks.prompt_bank.bank.ann_file (and data_root, data_prefix), or '
                    'bank=PATH of a prompt bank.'
                )
            train = innermost_dataset(cfg.train_dataloader.dataset)
            source = {key: train[key] for key in SPLIT_KEYS if key in train and key != 'match'}
        named = source | named
    list_name = named.pop('support', (source or {}).get('support'))
    if not support:
        return named
    if os.path.isdir(support):
        if not list_name:
            raise ValueError(
                f'The lists of exemplars in {support} cannot be told apart: name a file by '
                'default_hooks.prompt_bank.bank.support or, in each member of a DatasetGroup, '
                'prompts=dict(support=FILE_NAME).'
            )
        support = os.path.join(support, list_name)
    named.pop('ann_file', None)
    # data_root, which is that of the images, is joined to no absolute path
    return named | dict(support=support if '://' in support else os.path.abspath(support))


def innermost_dataset(dataset: Any) -> Any:
    """The dataset, or config of one, inside wrappers such as ``RepeatDataset``."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def members_of(dataset: Dataset) -> list[tuple[str | None, Dataset, dict | None]]:
    """Name, dataset and ``prompts`` of each test set of a loader.

    Members of a ``DatasetGroup`` have names, those of a ``ConcatDataset`` are named by position,
    and the name of a single dataset is None.
    """
    if hasattr(dataset, 'prompt_sources'):
        sources = [dataset.prompt_sources[name] for name in dataset.names]
        return list(zip(dataset.names, dataset.datasets, sources, strict=True))
    if hasattr(dataset, 'datasets'):
        return [
            (position_name(position), innermost_dataset(member), None)
            for position, member in enumerate(dataset.datasets)
        ]
    return [(None, innermost_dataset(dataset), None)]


def classes_without_boxes(dataset: Dataset) -> list[str]:
    """Classes of a test set that it has no box of, so that they do not count in its figures.

    None where it has no box at all: what its images show is then not known.
    """
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    boxes = (box for info in infos for box in info['instances'] if not box.get('ignore_flag'))
    found = {box['bbox_label'] for box in boxes}
    classes = enumerate(dataset.metainfo['classes'] if found else ())
    return [name for label, name in classes if label not in found]


def are_enough(prompted: Collection[str], dataset: Dataset) -> bool:
    """Whether the classes with a prompt are all that a test set has boxes of."""
    lacking = set(dataset.metainfo['classes']) - set(prompted)
    return not lacking or lacking <= set(classes_without_boxes(dataset))


def position_name(position: int) -> str:
    """Name of a member of a ``ConcatDataset``."""
    return f'dataset {position}'
