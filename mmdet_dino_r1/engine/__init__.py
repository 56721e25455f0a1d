"""What runs around the model."""

from . import hooks
from .amp import CheckedAmpOptimWrapper, CheckedOptimWrapper
from .grouped_optimizer import GroupedOptimWrapperConstructor
from .legible_visualizer import LegibleVisualizer

__all__ = [
    'CheckedAmpOptimWrapper',
    'CheckedOptimWrapper',
    'GroupedOptimWrapperConstructor',
    'LegibleVisualizer',
    'hooks',
]
