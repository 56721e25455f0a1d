"""Image encoders: mmdet's, faster or with other weights."""

from .efficientnet import EfficientNetLite0
from .swin import FusedSwinTransformer

__all__ = ['EfficientNetLite0', 'FusedSwinTransformer']
