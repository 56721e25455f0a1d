"""Hooks of the standard runner."""

from .checkpoint_hook import SafeCheckpointHook
from .first_batch_hook import FirstBatchHook
from .gradient_share_hook import GradientShareHook
from .group_visualization_hook import GroupVisualizationHook
from .prompt_bank_hook import PromptBankHook
from .reference_model_hook import ReferenceModelHook
from .resume_hook import ResumeHook
from .strict_load_hook import StrictLoadHook
from .text_alignment_hook import TextAlignmentHook

__all__ = [
    'FirstBatchHook',
    'GradientShareHook',
    'GroupVisualizationHook',
    'PromptBankHook',
    'ReferenceModelHook',
    'ResumeHook',
    'SafeCheckpointHook',
    'StrictLoadHook',
    'TextAlignmentHook',
]
