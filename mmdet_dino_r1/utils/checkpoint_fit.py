"""A model's state in a checkpoint, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .pet_dino_keys import our_names

LEFT_OVER = 'not in the model'


class UnfitCheckpoint(ValueError):
    """A checkpoint is not of this model; the message names tensors or settings, and the remedy."""


def state_of(checkpoint: dict) -> dict[str, Tensor]:
    """The model's state in a checkpoint under our names, without the prefix of a wrapper."""
    given = checkpoint.get('state_dict', checkpoint)
    return our_names({name.removeprefix('module.'): value for name, value in given.items()})


def explain_fusion(model: nn.Module, checkpoint: dict) -> str | None:
    """What is wrong where our own checkpoint was trained with another ``model.fusion``, or None.

    For tests: without fusion a model has fewer parts, so all of its tensors are found, and its
    detections would mean nothing. A training may start from such weights.
    """
    names = [name.removeprefix('module.') for name in checkpoint.get('state_dict', checkpoint)]
    if not any(name.startswith('prompt_encoder.') for name in names):
        return None  # of others
    trained = any(name.startswith('encoder.fusion_layers.') for name in names)
    if getattr(model, 'fusion', trained) == trained:
        return None
    return f'trained with model.fusion={trained}, the config has model.fusion={model.fusion}'


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """A line for every tensor of the model or the checkpoint without one of its shape there."""
    lines = []
    for name, value in own.items():
        if name not in given:
            lines.append(f'{name}: not in the checkpoint')
        elif given[name].shape != value.shape:
            sizes = f'checkpoint {tuple(given[name].shape)}, model {tuple(value.shape)}'
            lines.append(f'{name}: {sizes}')
    return lines + [f'{name}: {LEFT_OVER}' for name in given if name not in own]
