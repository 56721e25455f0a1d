"""Typed values that travel between the stages; no model code."""

from .exemplar_choice import ExemplarChoice
from .prompt_bank import PromptBank
from .query_selection import QuerySelection
from .visual_prompts import VisualPrompts

__all__ = ['ExemplarChoice', 'PromptBank', 'QuerySelection', 'VisualPrompts']
