"""Datasets: the shapes set, COCO files with own classes, exemplars, groups of test sets."""

from .coco_json import CocoJsonDataset
from .dataset_group import DatasetGroup
from .exemplar_dataset import ExemplarDataset
from .resumable_batches import ResumableBatchSampler
from .same_size import SameSizeBatchSampler
from .shapes import ShapesConfig, generate_shapes, shapes_checksums
from .shapes_drawing import DIFFICULTIES, ShapesDifficulty

__all__ = [
    'DIFFICULTIES',
    'CocoJsonDataset',
    'DatasetGroup',
    'ExemplarDataset',
    'ResumableBatchSampler',
    'SameSizeBatchSampler',
    'ShapesConfig',
    'ShapesDifficulty',
    'generate_shapes',
    'shapes_checksums',
]
