"""Datasets: the shapes set, COCO files with own classes, exemplars."""

from .coco_json import CocoJsonDataset
from .exemplar_dataset import ExemplarDataset
from .shapes import ShapesConfig, generate_shapes
from .shapes_drawing import ShapesDifficulty

__all__ = [
    'CocoJsonDataset',
    'ExemplarDataset',
    'ShapesConfig',
    'ShapesDifficulty',
    'generate_shapes',
]
