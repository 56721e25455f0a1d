"""What runs around the model."""

from . import hooks

__all__ = ['hooks']
