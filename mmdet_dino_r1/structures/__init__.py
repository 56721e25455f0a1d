"""Typed values that travel between the stages; no model code."""

from .batch_boxes import BatchBoxes, Candidates
from .class_directions import class_directions
from .exemplar_choice import ExemplarChoice
from .prompt_bank import BankExemplars, PromptBank, class_means, protocol_summary
from .prompt_bank_file import load_prompt_bank, save_prompt_bank
from .query_selection import QuerySelection, take_tokens
from .text_embeddings import TextEmbeddings, load_text_embeddings, save_text_embeddings
from .visual_prompts import VisualPrompts

__all__ = [
    'BankExemplars',
    'BatchBoxes',
    'Candidates',
    'ExemplarChoice',
    'PromptBank',
    'QuerySelection',
    'TextEmbeddings',
    'VisualPrompts',
    'class_directions',
    'class_means',
    'load_prompt_bank',
    'load_text_embeddings',
    'protocol_summary',
    'save_prompt_bank',
    'save_text_embeddings',
    'take_tokens',
]
