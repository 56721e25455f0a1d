"""What mmdet's metrics lack."""

from .coco_json_metric import CocoJsonMetric
from .group_evaluator import DatasetGroupEvaluator
from .lvis_metric import LVISBoxMetric

__all__ = ['CocoJsonMetric', 'DatasetGroupEvaluator', 'LVISBoxMetric']
