"""Datasets: COCO files with own classes, exemplars, groups of test sets; a loader of images."""

from .coco_json import CocoJsonDataset
from .dataset_group import DatasetGroup
from .exemplar_dataset import ExemplarDataset
from .resumable_batches import ResumableBatchSampler
from .same_size import SameSizeBatchSampler
from .scaled_image import LoadScaledImage
from .support_list import SupportListDataset
from .tuning_dataset import TuningDataset

__all__ = [
    'CocoJsonDataset',
    'DatasetGroup',
    'ExemplarDataset',
    'LoadScaledImage',
    'ResumableBatchSampler',
    'SameSizeBatchSampler',
    'SupportListDataset',
    'TuningDataset',
]
