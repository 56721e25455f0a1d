"""Weights into a model, without executing code from the file."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn

from ..compat import allow_resume


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint with PyTorch's safe loader; the model prints what came of it.

    onedl-mmengine goes on with the unsafe loader where the safe one refuses; here it stays
    refused.

    Args:
        model: takes the weights.
        checkpoint: path or URL of a file with a ``state_dict``, as mmengine saves it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no checkpoint, truncated, holds more than tensors and plain
            values, or was made with a model of which less than half is the same.
    """
    allow_resume()  # the log history that mmengine keeps in a checkpoint
    try:
        if '://' in str(checkpoint):
            content = torch.hub.load_state_dict_from_url(
                str(checkpoint), map_location='cpu', weights_only=True
            )
        else:
            if not Path(checkpoint).is_file():
                raise FileNotFoundError(f'There is no checkpoint {checkpoint}.')
            content = torch.load(checkpoint, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f'{checkpoint} is not a checkpoint that can be loaded safely: {reason}'
        ) from error
    _refuse_another_model(model, content, checkpoint)
    _load_checkpoint_to_model(model, content, strict=False, logger='current')


def _refuse_another_model(model: nn.Module, content: dict, checkpoint: str | Path) -> None:
    """Detections of a model that stayed random for the most part would mean nothing."""
    given = {
        name.removeprefix('module.'): value
        for name, value in content.get('state_dict', content).items()
    }
    wanted = model.state_dict()
    fitting = sum(
        getattr(given.get(name), 'shape', None) == value.shape for name, value in wanted.items()
    )
    if 2 * fitting < len(wanted):
        raise ValueError(
            f'{checkpoint} holds {fitting} of the {len(wanted)} tensors of this model in their '
            'size: it was made with another config. Give the one it was trained with (mmengine '
            'leaves a copy in the work directory).'
        )
