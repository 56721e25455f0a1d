"""Sampling, rewarding and assigning: what learns nothing itself."""

from .batched_assigner import BatchedHungarianAssigner, Matches, PromptFocalLossCost
from .prompt_gathering import gather_embeddings
from .prompt_sampler import InBatchPromptSampler, normalised_boxes, prompted_boxes_only
from .query_reward import BestMatchReward

__all__ = [
    'BatchedHungarianAssigner',
    'BestMatchReward',
    'InBatchPromptSampler',
    'Matches',
    'PromptFocalLossCost',
    'gather_embeddings',
    'normalised_boxes',
    'prompted_boxes_only',
]
