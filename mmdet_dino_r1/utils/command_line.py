"""What every command-line tool does around its work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import torch
from mmengine.config import DictAction
from mmengine.dist import init_dist

from .compat import join_processes_without_gpu

NO_KEY_VALUE = 'takes KEY=VALUE, without blanks around "=".'


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Let a ``ValueError`` or ``OSError`` end a tool in one line and exit status 2.

    These are the user's to mend; any other error is ours and keeps its traceback.
    """
    tool = Path(main.__code__.co_filename).stem

    @wraps(main)
    def guarded(args: Sequence[str] | None = None) -> int:
        try:
            return main(args)
        except (ValueError, OSError) as error:
            rank = os.environ.get('RANK', '0')  # an image may be unreadable to one process alone
            where = '' if rank == '0' else f' (process {rank})'
            print(f'{tool}{where}: {error}', file=sys.stderr)
            return 2

    return guarded


def positive(text: str) -> int:
    """Type of an argument: a whole number from 1 on, else ``ArgumentTypeError``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of at least 1')
    return int(text)


def add_model(parser: argparse.ArgumentParser, device: bool = True) -> None:
    """Add to a parser ``config``, ``checkpoint``, ``--device`` and ``--cfg-options``."""
    parser.add_argument('config', help='config file, or the bare name of a shipped one')
    parser.add_argument('checkpoint', help='weights')
    if device:
        parser.add_argument('--device', help='cpu, cuda:1 … (default: a GPU where there is one)')
    add_cfg_options(parser)


class _KeyValue(DictAction):
    """mmengine's, which fails without a word where there is no ``=``."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if any('=' not in word for word in values):
            parser.error(f'{option_string} {NO_KEY_VALUE}')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, a dict or None."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=_KeyValue, metavar='KEY=VALUE', help='as in mim train'
    )


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes``, a list of names or None."""
    help = 'names, "cat,dog", or a file with one per line'
    parser.add_argument('--classes', type=class_list, help=help)


def class_list(text: str) -> list[str]:
    """Names from ``--classes``: the lines of a file, or what stands between commas."""
    if Path(text).is_file():
        names = Path(text).read_text(encoding='utf-8').splitlines()
    else:
        names = text.split(',')
    return [name.strip() for name in names if name.strip()]


@contextmanager
def launched(tool: str, launcher: str, device: str | None) -> Iterator[None]:
    """Inside, a ``tool`` is one of the processes that torchrun or srun started, if it says so.

    Raises:
        ValueError: the launcher did not start this process.
    """
    if launcher == 'none':
        yield
        return
    module = f'-m mmdet_dino_r1.tools.{tool} …'
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(f'--launcher pytorch needs torchrun: torchrun --nproc_per_node N {module}')
    if launcher == 'slurm' and 'SLURM_PROCID' not in os.environ:
        raise ValueError(f'--launcher slurm needs srun: srun --ntasks N python {module}')
    join_processes_without_gpu(launcher, device)
    if not torch.distributed.is_initialized():
        init_dist(launcher, backend='nccl')
    yield
    torch.distributed.destroy_process_group()


def add_out_file(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add to a parser ``--out``, a path by custom with this suffix, and ``--overwrite``."""
    parser.add_argument('--out', type=Path, required=True, help=f'file to write: *{suffix}')
    parser.add_argument('--overwrite', action='store_true', help='replace --out where it exists')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, 'none', 'pytorch' or 'slurm'; see :func:`launched`."""
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none')


def refuse_existing(options: argparse.Namespace) -> None:
    """Raise ``FileExistsError``, before any work, where ``--out`` may not be replaced."""
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f'{options.out} exists; --overwrite replaces it.')
