"""A model with its weights, without executing code from the file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_to_model
from torch import nn

from ..utils.checkpoint_fit import UnfitCheckpoint, explain_fusion, state_of
from ..utils.pet_dino_keys import is_pet_dino


def choose_device(device: str | None = None) -> str:
    """A device that works: the one given ('cuda:0'), else CUDA where there is some, else the CPU.

    Raises:
        ValueError: there is no such device.
    """
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'The device {device!r} cannot be used: {error}') from error
    return device


def build_model(cfg: Config, checkpoint: str | Path) -> nn.Module:
    """The model of a whole config, on the CPU; see :func:`load_weights`."""
    model = MODELS.build(deepcopy(cfg.model))  # mmdet's detectors write into their config
    load_weights(model, checkpoint)
    return model


def load_weights(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint, a path or URL read by ``safe_files``; the model prints what came of it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no checkpoint, truncated, holds more than tensors and plain
            values, or was made with a model of which less than half is the same. Detections of a
            model that stayed random for the most part would mean nothing.
        UnfitCheckpoint: ours was trained with another ``fusion``, or PET-DINO's model is another.
    """
    content = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    if wrong := explain_fusion(model, content):
        raise UnfitCheckpoint(f'{checkpoint}: {wrong}. Give the config that it was trained with.')
    given, wanted = state_of(content), model.state_dict()
    fitting = sum(
        getattr(given.get(name), 'shape', None) == value.shape for name, value in wanted.items()
    )
    # of PET-DINO's the model itself says which config they need
    if 2 * fitting < len(wanted) and not is_pet_dino(content.get('state_dict', content)):
        raise ValueError(
            f'{checkpoint} holds {fitting} of the {len(wanted)} tensors of this model in their '
            'size: it was made with another config. Give the one it was trained with (mmengine '
            'leaves a copy in the work directory).'
        )
    _load_checkpoint_to_model(model, content, strict=False, logger='current')
