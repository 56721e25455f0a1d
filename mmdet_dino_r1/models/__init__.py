"""Model components, registered in mmdet's MODELS and TASK_UTILS."""

from . import backbones, dense_heads, detectors, layers, losses, task_modules

task_modules.BestMatchReward = losses.BestMatchReward  # where 0.5 had it; until 0.8

__all__ = ['backbones', 'dense_heads', 'detectors', 'layers', 'losses', 'task_modules']
