"""The wrappers that a model trains in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector inside a DDP or test-time-augmentation wrapper, or itself."""
    return getattr(model, 'module', model)


def whole_weights(model: nn.Module) -> AbstractContextManager:
    """A context in which parts of a sharded model can be called one by one; else does nothing.

    FSDP puts the weights together only while its own ``forward`` runs. Encoding exemplars and
    reading the weights go past it. Every process must enter the context. Changes are lost.
    """
    summon = getattr(model, 'summon_full_params', None)
    return summon(model, writeback=False) if summon else nullcontext()
