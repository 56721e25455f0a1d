"""What mmdet's metrics lack."""

from .group_evaluator import DatasetGroupEvaluator
from .lvis_metric import LVISBoxMetric

__all__ = ['DatasetGroupEvaluator', 'LVISBoxMetric']
