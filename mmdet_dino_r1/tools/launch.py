"""Runs mmdet's own train and test scripts, after checks that speak plainly.

The scripts are the ones mmdet installed, so every flag behaves as in mmdet. What is added: this
package is imported first (its classes are registered, and ``mmdet_dino_r1::configs/x.py``
resolves), and what is mistyped, missing, broken or full ends in a message of a few lines.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import runpy
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import mmdet
import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from ..checks.checkpoint import explain_checkpoint, explain_work_dir
from ..checks.config_keys import misspelt_keys, report_misspelt
from ..checks.preflight import explain_mistake, find_missing, report_missing
from ..checks.run_failures import explain_failure
from ..config.shipped import config_path, near_configs
from ..engine.hooks.checkpoint_fit_hook import UnfitCheckpoint
from ..engine.hooks.checkpoint_hook import CheckpointNotSaved
from ..utils.compat import join_processes_without_gpu
from .check_data import find_problems, report_problems

_RANK_VARIABLES = {
    'pytorch': 'RANK',
    'slurm': 'SLURM_PROCID',
    'mpi': 'OMPI_COMM_WORLD_RANK',
}
# How mmengine words a `type` it cannot find; runners and schedulers leave the scope out.
_UNKNOWN_TYPE = re.compile(r'^(\S+) is not in the (?:\w+::)?(.+?) registry\.')


def launch(stage: str) -> None:
    """Check, then run mmdet's script with this process's command line.

    Args:
        stage: 'train' or 'test'.
    """
    script = str(mmdet_script(stage))
    # Its parser is the only one that knows all its flags; `-h` prints its help and ends here.
    args = runpy.run_path(script, run_name='mmdet_script')['parse_args']()
    resolve_bare_name(args)
    cfg = load_config(args)
    if wrong_keys := misspelt_keys(cfg):
        stop(report_misspelt(wrong_keys, args.config), args.launcher)
    if mistake := explain_mistake(cfg, args, stage):
        stop(mistake, args.launcher)
    if missing := find_missing(cfg, args, stage):
        stop(report_missing(missing, args.config), args.launcher)
    if mistake := explain_work_dir(cfg, args):
        stop(mistake, args.launcher)
    if is_first_process(args.launcher):  # the others end with it
        if mistake := explain_checkpoint(cfg, args, stage):
            stop(mistake, args.launcher)
        if stage == 'train' and cfg.get('check_data', True):
            check_data(cfg, args)
    join_processes_without_gpu(args.launcher)
    try:
        runpy.run_path(script, run_name='__main__')
    except KeyError as error:
        if (message := explain_unknown_type(error, cfg)) is None:
            raise
        stop(message, args.launcher)
    except (CheckpointNotSaved, UnfitCheckpoint) as error:
        stop(str(error), args.launcher)
    except (RuntimeError, OSError, MemoryError) as error:
        if message := explain_failure(error, cfg, args, stage):
            # of several processes the one that it happens to says so, below its traceback
            sys.excepthook(type(error), error, error.__traceback__)
            print(f'mmdet_dino_r1: {message}', file=sys.stderr, flush=True)
            sys.exit(1)
        raise


def check_data(cfg: Config, args: argparse.Namespace) -> None:
    """End where the annotation files are wrong; say what is merely odd and go on.

    Args:
        cfg: the config, ``--cfg-options`` merged.
        args: what mmdet's own parser made of the command line.
    """
    problems = find_problems(cfg, 'train')
    if any(problem.is_error for problem in problems):
        remedy = 'To start nevertheless: --cfg-options check_data=False'
        stop(f'{report_problems(problems, args.config)}\n{remedy}', args.launcher)
    if problems:
        print(f'mmdet_dino_r1: {report_problems(problems, args.config)}', file=sys.stderr)


def mmdet_script(stage: str) -> Path:
    """Path of the script mmdet installed.

    Raises:
        FileNotFoundError: mmdet was installed without its tools.
    """
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / f'{stage}.py'
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist: mmdet was installed without its tools. Install it with '
            'pip or mim, not by copying its folder.'
        )
    return script


def resolve_bare_name(args: argparse.Namespace) -> None:
    """Let the bare name of a shipped config stand for its path, as in ``mim train``.

    Args:
        args: what mmdet's own parser made of ``sys.argv``; both are changed.
    """
    name = args.config
    if Path(name).name != name or Path(name).is_file():
        return
    with suppress(FileNotFoundError):
        args.config = config_path(name)
        sys.argv[sys.argv.index(name)] = args.config


def load_config(args: argparse.Namespace) -> Config:
    """The config as mmdet's script will see it; ends with a message where there is none."""
    if not Path(args.config).is_file():
        stop(explain_unknown_config(args.config), args.launcher)
    try:
        cfg = Config.fromfile(args.config)
    except FileNotFoundError as error:  # a `_base_` of it
        stop(explain_missing_base(args.config, error), args.launcher)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if getattr(args, 'amp', False) and 'optim_wrapper' in cfg:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    return cfg


def explain_missing_base(config: str, error: FileNotFoundError) -> str:
    """One or two lines on a ``_base_`` that is not there.

    Args:
        config: the file that names it, itself or through another base.
        error: what mmengine raised.
    """
    message = f'{config}: {error}'
    if str(error.filename).endswith('mmdet_dino_r1/.mim/model-index.yml'):
        message += (
            '\nmmdet_dino_r1 is found but not installed, which mmdet_dino_r1::… in a _base_ needs: '
            'run `pip install -e .` (or `make setup`) in its repository.'
        )
    return message


def explain_unknown_config(config: str) -> str:
    """One line on a config file that does not exist, with what was probably meant."""
    message = f'config file {os.path.abspath(config)} does not exist.'
    try:
        return f'{message} The shipped one of that name is {config_path(Path(config).name)}'
    except FileNotFoundError:
        near = near_configs(config)
    return f'{message} Near names among the shipped ones: {", ".join(near)}' if near else message


def explain_unknown_type(error: KeyError, cfg: Config) -> str | None:
    """One line on a mistyped ``type=``, with near names; None if ``error`` is another one.

    Args:
        error: raised while the run was built.
        cfg: the config, in which the place is looked up.
    """
    match = _UNKNOWN_TYPE.match(str(error.args[0]) if error.args else '')
    if match is None:
        return None
    name, kind = match.groups()
    places = [f'{key}.type' for key in _find_type(cfg.to_dict(), name)]
    where = f' ({", ".join(places)})' if places else ''
    near = difflib.get_close_matches(name, _registered_names(kind), n=3, cutoff=0.6)
    hint = f'Did you mean {" or ".join(near)}?' if near else 'Is its module in `custom_imports`?'
    return f"type='{name}'{where} is not registered as a {kind}. {hint}"


def _find_type(node: object, name: str, key: str = '') -> list[str]:
    """Dotted keys of the dicts in ``node`` whose ``type`` is ``name``."""
    if isinstance(node, dict):
        found = [key] if node.get('type') == name else []
        items = node.items()
    elif isinstance(node, (list, tuple)):
        found, items = [], enumerate(node)
    else:
        return []
    for child, value in items:
        found += _find_type(value, name, f'{key}.{child}' if key else str(child))
    return found


def _registered_names(kind: str) -> set[str]:
    """Names in all registries of one kind ('model', 'hook', ...), mmengine's and its children's."""
    names: set[str] = set()
    waiting = [root for root in vars(mmengine.registry).values() if isinstance(root, Registry)]
    while waiting:
        registry = waiting.pop()
        waiting += registry.children.values()
        if registry.name == kind:
            names |= registry.module_dict.keys()
    return names


def is_first_process(launcher: str) -> bool:
    """Whether this is the process that speaks and checks for all."""
    return os.environ.get(_RANK_VARIABLES.get(launcher, ''), '0') == '0'


def stop(message: str, launcher: str) -> NoReturn:
    """End with a message and exit status 2; of several processes only the first says why.

    Args:
        message: what is wrong, and the remedy.
        launcher: as on the command line.
    """
    if is_first_process(launcher):
        print(f'mmdet_dino_r1: {message}', file=sys.stderr, flush=True)
    sys.exit(2)
