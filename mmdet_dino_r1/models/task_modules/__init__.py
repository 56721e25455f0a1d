"""Sampling, rewarding and assigning: what learns nothing itself."""

from .batched_assigner import BatchedHungarianAssigner, Matches
from .match_costs import PromptBBoxL1Cost, PromptFocalLossCost, PromptGIoUCost
from .prompt_gathering import gather_embeddings
from .prompt_sampler import BatchBoxes, InBatchPromptSampler, normalised_boxes, prompted_boxes_only
from .query_reward import BestMatchReward

__all__ = [
    'BatchBoxes',
    'BatchedHungarianAssigner',
    'BestMatchReward',
    'InBatchPromptSampler',
    'Matches',
    'PromptBBoxL1Cost',
    'PromptFocalLossCost',
    'PromptGIoUCost',
    'gather_embeddings',
    'normalised_boxes',
    'prompted_boxes_only',
]
