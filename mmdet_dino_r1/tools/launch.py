"""Runs the train and test scripts that mmdet installed, after checks that speak plainly."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import NoReturn

import mmdet

from ..checks.given_files import read_config
from ..checks.preflight import CHECKS, CHECKS_OF_FIRST_PROCESS
from ..checks.run_failures import explain_failure, explain_user_error
from ..config.options import WrongOption
from ..utils.command_line import NO_KEY_VALUE
from ..utils.compat import join_processes_without_gpu

_RANK_VARIABLES = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


def launch(stage: str) -> None:
    """Check, then run mmdet's script for 'train' or 'test' with this process's command line."""
    script = str(mmdet_script(stage))
    # Its parser is the only one that knows all its flags; `-h` prints its help and ends here.
    parse_args = runpy.run_path(script, run_name='mmdet_script')['parse_args']
    try:
        args = parse_args()
    except ValueError:
        stop(f'--cfg-options {NO_KEY_VALUE}', 'none')
    try:
        cfg = read_config(args)
    except (FileNotFoundError, WrongOption) as error:
        stop(str(error), args.launcher)
    for check in CHECKS + CHECKS_OF_FIRST_PROCESS * is_first_process(args.launcher):
        if message := check(cfg, args, stage):
            stop(message, args.launcher)
    join_processes_without_gpu(args.launcher)
    try:
        runpy.run_path(script, run_name='__main__')
    except Exception as error:
        if message := explain_user_error(error, cfg):
            stop(message, args.launcher)
        if message := explain_failure(error, cfg, args, stage):
            # of several processes the one that it happens to says so, below its traceback
            sys.excepthook(type(error), error, error.__traceback__)
            print(f'mmdet_dino_r1: {message}', file=sys.stderr, flush=True)
            sys.exit(1)
        raise


def mmdet_script(stage: str) -> Path:
    """Path of mmdet's script; FileNotFoundError: mmdet was installed without its tools."""
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / f'{stage}.py'
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist: mmdet was installed without its tools. Install it with '
            'pip or mim, not by copying its folder.'
        )
    return script


def is_first_process(launcher: str) -> bool:
    """Whether this is the process that speaks and checks for all."""
    return os.environ.get(_RANK_VARIABLES.get(launcher, ''), '0') == '0'


def stop(message: str, launcher: str) -> NoReturn:
    """End with a message and exit status 2; of several processes only the first says why."""
    if is_first_process(launcher):
        print(f'mmdet_dino_r1: {message}', file=sys.stderr, flush=True)
    sys.exit(2)
