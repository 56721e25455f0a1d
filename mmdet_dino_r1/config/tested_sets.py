"""Which datasets a loader tests, and where each one's exemplars come from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from mmengine.config import ConfigDict
from torch.utils.data import Dataset

# of PromptBankHook's `bank`: those that name the split
SPLIT_KEYS = ('data_root', 'ann_file', 'data_prefix', 'match')


def exemplar_source(bank: dict, cfg: ConfigDict, source: dict | None = None) -> dict:
    """The split that exemplars come from, as arguments of ``ExemplarDataset``, and ``match``.

    An ``ann_file`` in the hook's ``bank`` decides, else the ``prompts`` of a group's member
    (``source``), else the training set; ValueError where there is none.
    """
    named = {key: bank[key] for key in SPLIT_KEYS if key in bank}
    if 'ann_file' in named:
        return named
    if source is None:
        if not cfg.get('train_dataloader'):
            raise ValueError(
                'The config names no split for the exemplars: it has no train_dataloader. Set '
                'default_hooks.prompt_bank.bank.ann_file (and data_root, data_prefix), or '
                'bank=PATH of a prompt bank.'
            )
        train = innermost_dataset(cfg.train_dataloader.dataset)
        source = {key: train[key] for key in SPLIT_KEYS if key in train and key != 'match'}
    return source | named


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
