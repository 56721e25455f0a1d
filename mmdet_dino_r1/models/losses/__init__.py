"""Losses that mmdet does not have."""

from .grqo_loss import GRQOLoss, group_advantage, mute_last, objectness_kl

__all__ = ['GRQOLoss', 'group_advantage', 'mute_last', 'objectness_kl']
