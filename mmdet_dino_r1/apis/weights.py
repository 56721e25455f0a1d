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
        ValueError: the file is no checkpoint, truncated, or holds more than tensors and plain
            values.
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
    _load_checkpoint_to_model(model, content, strict=False, logger='current')
