"""The config that a run is started with, and what is said where there is none."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config

from ..config.shipped import config_path


def read_config(args: argparse.Namespace) -> Config:
    """The config as mmdet's script will see it.

    The name of a shipped one stands for its path, as in ``mim train``.

    Args:
        args: what mmdet's own parser made of ``sys.argv``; both are changed.

    Raises:
        FileNotFoundError: there is no such file, or none of a ``_base_`` in it.
    """
    name = args.config
    if not Path(name).is_file():
        try:
            args.config = config_path(name)
        except FileNotFoundError as error:
            said = f'config file {os.path.abspath(name)} does not exist; {error}'
            raise FileNotFoundError(said) from error
        sys.argv[sys.argv.index(name)] = args.config
    try:
        cfg = Config.fromfile(args.config)
    except FileNotFoundError as error:
        raise FileNotFoundError(explain_missing_base(args.config, error)) from error
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if getattr(args, 'amp', False) and 'optim_wrapper' in cfg:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    return cfg


def explain_missing_base(config: str, error: FileNotFoundError) -> str:
    """What ``error`` says of a ``_base_`` of ``config`` that is not there, with the remedy."""
    if not str(error.filename).endswith('mmdet_dino_r1/.mim/model-index.yml'):
        return f'{config}: {error}'
    return (
        f'{config}: {error}\nmmdet_dino_r1 is found but not installed, which mmdet_dino_r1::… in a '
        '_base_ needs: run `pip install -e .` (or `make setup`) in its repository.'
    )
