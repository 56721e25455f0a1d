"""What mmdet's metrics lack."""

from .chance_level import chance_ap50
from .group_evaluator import DatasetGroupEvaluator
from .lvis_metric import LVISBoxMetric

__all__ = ['DatasetGroupEvaluator', 'LVISBoxMetric', 'chance_ap50']
