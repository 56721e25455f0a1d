"""Losses that mmdet does not have."""

from .giou_loss import PromptGIoULoss
from .grqo_loss import BestMatchReward, GRQOLoss, group_advantage, mute_last, objectness_kl
from .prompt_contrastive_loss import PromptContrastiveLoss
from .prompt_text_loss import (
    FrozenProjection,
    PromptTextContrastiveLoss,
    mean_per_class,
    prompt_text_contrast,
)
from .quality_focal_loss import PromptQualityFocalLoss

__all__ = [
    'BestMatchReward',
    'FrozenProjection',
    'GRQOLoss',
    'PromptContrastiveLoss',
    'PromptGIoULoss',
    'PromptQualityFocalLoss',
    'PromptTextContrastiveLoss',
    'group_advantage',
    'mean_per_class',
    'mute_last',
    'objectness_kl',
    'prompt_text_contrast',
]
