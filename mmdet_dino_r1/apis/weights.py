"""Weights into a model, without executing code from the file."""

from __future__ import annotations

from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model
from torch import nn


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint, without running code from it; the model prints what came of it.

    Args:
        model: takes the weights.
        checkpoint: path, URL or anything else that mmengine loads, which this package has made
            safe (``safe_files``); a ``state_dict`` or a file with one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no checkpoint, truncated, holds more than tensors and plain
            values, or was made with a model of which less than half is the same.
    """
    content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
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
