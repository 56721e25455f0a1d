"""The shapes set: drawn images that the tests and the demo need."""

from .shapes import ShapesConfig, generate_shapes, shapes_checksums
from .shapes_drawing import DIFFICULTIES, ShapesDifficulty

__all__ = [
    'DIFFICULTIES',
    'ShapesConfig',
    'ShapesDifficulty',
    'generate_shapes',
    'shapes_checksums',
]
