"""What a run is given: its config, its work directory and the checkpoint that it starts from."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mmengine.config import Config

from ..config.loading import load_config
from ..config.shipped import config_path
from ..utils.safe_files import load_torch_file


def read_config(args: argparse.Namespace) -> Config:
    """The config as mmdet's script will see it.

    The name of a shipped one stands for its path, as in ``mim train``: in ``sys.argv`` too.

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
        cfg = load_config(args.config, args.cfg_options)
    except FileNotFoundError as error:
        raise FileNotFoundError(explain_missing_base(args.config, error)) from error
    if getattr(args, 'amp', False) and 'optim_wrapper' in cfg:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    return cfg


def explain_missing_base(config: str, error: FileNotFoundError) -> str:
    """What ``error`` says of a missing ``_base_`` of ``config``, with the remedy."""
    if not str(error.filename).endswith('mmdet_dino_r1/.mim/model-index.yml'):
        return f'{config}: {error}'
    return (
        f'{config}: {error}\nmmdet_dino_r1 is found but not installed, which mmdet_dino_r1::… in a '
        '_base_ needs: run `pip install -e .` (or `make setup`) in its repository.'
    )


def work_dir_of(cfg: Config, args: argparse.Namespace) -> Path:
    """The folder that mmdet's scripts choose: command line, config, name of the config."""
    return Path(args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}')


def explain_work_dir(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """Why the work directory cannot be made and written to, with the remedy; None if it can."""
    folder = work_dir_of(cfg, args)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        place = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        reason = f'{place} is a file' if place.is_file() else f'{error.strerror} ({place})'
        return (
            f'the work directory {folder} cannot be used: {reason}.\n'
            'Remedy: --work-dir DIR, a folder that can be made and written to.'
        )
    return None


def explain_checkpoint(cfg: Config, args: argparse.Namespace, stage: str) -> str | None:
    """What is wrong with the local checkpoint that the run starts from; None if nothing is."""
    if stage == 'test':
        return _what_is_wrong(args.checkpoint, 'the checkpoint to test')
    given = None if args.resume == 'auto' else args.resume or cfg.get('load_from')
    if not (args.resume or cfg.get('resume')):
        return _what_is_wrong(given, 'load_from') if given else None
    path = given or _last_checkpoint(work_dir_of(cfg, args))
    if path is None:
        return None  # mmengine starts anew
    wrong = _what_is_wrong(path, 'the checkpoint to continue from', of_a_run=True)
    if wrong is None:
        return None
    for other in sorted(Path(path).parent.glob('*.pth'), key=os.path.getmtime, reverse=True):
        is_best = other.name.startswith('best_')  # without the optimiser's state
        if not is_best and _what_is_wrong(str(other), '', of_a_run=True) is None:
            return f'{wrong}\nThe newest one beside it that is whole: --resume {other}'
    return f'{wrong}\nThere is no other one of this run beside it: start without --resume.'


def _last_checkpoint(folder: Path) -> str | None:
    """What ``last_checkpoint`` names, or the file itself where a crash has emptied it."""
    file = folder / 'last_checkpoint'
    return file.read_text(encoding='utf-8').strip() or str(file) if file.is_file() else None


def _what_is_wrong(path: str, what: str, of_a_run: bool = False) -> str | None:
    """One line on a local file that cannot be loaded or, ``of_a_run``, continued from."""
    if '://' in path:
        return None
    if not os.path.isfile(path):
        return f'{what} does not exist: {path}'
    if not (size := os.path.getsize(path)):
        return f'{what} is empty: {path}'
    try:
        content = load_torch_file(path)
    except (ValueError, OSError) as error:
        return f'{what} ({size / 1e6:.1f} MB) cannot be read: {error}'
    if not isinstance(content, dict):
        return f'{what} holds no weights: {path}'
    meta = content.get('meta')
    if of_a_run and not (isinstance(meta, dict) and {'epoch', 'iter'} <= meta.keys()):
        return (
            f'{what} holds weights but not where a run stopped: {path}. To start anew from them: '
            f'--cfg-options load_from={path}, without --resume.'
        )
    return None
