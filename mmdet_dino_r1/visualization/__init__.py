"""Figures of trainings, prompts and detections."""

from .curves import draw_curves
from .detections import DetectionRow, draw_prompts_and_detections

__all__ = ['DetectionRow', 'draw_curves', 'draw_prompts_and_detections']
