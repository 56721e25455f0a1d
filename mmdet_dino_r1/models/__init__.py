"""Model components, registered in mmdet's MODELS and TASK_UTILS."""

from . import backbones, dense_heads, detectors, layers, losses, task_modules

__all__ = ['backbones', 'dense_heads', 'detectors', 'layers', 'losses', 'task_modules']
