"""What a program that uses the package calls."""

from .detection_results import to_coco
from .inferencer import DINOR1Inferencer
from .prompt_bank import build_prompt_bank
from .prompt_tuning import tune_prompt_bank, tune_references
from .reference_prompts import Reference

__all__ = [
    'DINOR1Inferencer',
    'Reference',
    'build_prompt_bank',
    'to_coco',
    'tune_prompt_bank',
    'tune_references',
]
