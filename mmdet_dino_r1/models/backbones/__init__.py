"""Image encoders that mmdet has, faster."""

from .swin import FusedSwinTransformer

__all__ = ['FusedSwinTransformer']
