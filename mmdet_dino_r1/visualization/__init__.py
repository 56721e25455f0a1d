"""Figures of trainings, prompts, detections and benchmarks."""

from .benchmark_plot import BenchmarkPanel, draw_benchmarks
from .curves import draw_curves
from .detections import DetectionRow, draw_prompts_and_detections

__all__ = [
    'BenchmarkPanel',
    'DetectionRow',
    'draw_benchmarks',
    'draw_curves',
    'draw_prompts_and_detections',
]
