"""What runs around the model."""

from . import hooks
from .amp import CheckedAmpOptimWrapper, CheckedOptimWrapper
from .grouped_optimizer import GroupedOptimWrapperConstructor

__all__ = [
    'CheckedAmpOptimWrapper',
    'CheckedOptimWrapper',
    'GroupedOptimWrapperConstructor',
    'hooks',
]
