"""The detector: wires the stages, no maths."""

from .dino_r1 import DINOR1
from .reference_model import ReferenceModel
from .warm_start import warm_start_report

__all__ = ['DINOR1', 'ReferenceModel', 'warm_start_report']
