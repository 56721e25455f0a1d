"""What is done to whole batches before the model."""

from .batch_channel_shuffle import BatchChannelShuffle

__all__ = ['BatchChannelShuffle']
