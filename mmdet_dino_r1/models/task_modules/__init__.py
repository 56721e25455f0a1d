"""Sampling and assigning: what learns nothing itself."""

from ...structures import BatchBoxes
from .batched_assigner import BatchedHungarianAssigner, Matches
from .match_costs import PromptBBoxL1Cost, PromptFocalLossCost, PromptGIoUCost
from .prompt_gathering import gather_embeddings
from .prompt_sampler import InBatchPromptSampler

__all__ = [
    'BatchBoxes',
    'BatchedHungarianAssigner',
    'InBatchPromptSampler',
    'Matches',
    'PromptBBoxL1Cost',
    'PromptFocalLossCost',
    'PromptGIoUCost',
    'gather_embeddings',
]
