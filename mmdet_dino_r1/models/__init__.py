"""Model components, registered in mmdet's MODELS and TASK_UTILS."""

from . import dense_heads, detectors, layers, losses, task_modules

__all__ = ['dense_heads', 'detectors', 'layers', 'losses', 'task_modules']
