"""Sampling, rewarding and assigning: what learns nothing itself."""

from .batched_assigner import BatchedHungarianAssigner, Matches, PromptFocalLossCost
from .prompt_sampler import InBatchPromptSampler, normalised_boxes
from .query_reward import BestMatchReward

__all__ = [
    'BatchedHungarianAssigner',
    'BestMatchReward',
    'InBatchPromptSampler',
    'Matches',
    'PromptFocalLossCost',
    'normalised_boxes',
]
