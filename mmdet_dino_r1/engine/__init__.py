"""What runs around the model."""

from . import hooks
from .grouped_optimizer import GroupedOptimWrapperConstructor

__all__ = ['GroupedOptimWrapperConstructor', 'hooks']
