"""Boxes, scores and the losses on them."""

from .dino_r1_head import DINOR1Head

__all__ = ['DINOR1Head']
