"""Hooks of the standard runner."""

from .gradient_share_hook import GradientShareHook
from .prompt_bank_hook import PromptBankHook
from .reference_model_hook import ReferenceModelHook

__all__ = ['GradientShareHook', 'PromptBankHook', 'ReferenceModelHook']
