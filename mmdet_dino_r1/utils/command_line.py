"""What every command-line tool does around its work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

from mmengine.config import DictAction

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


def add_out_file(parser: argparse.ArgumentParser, suffix: str) -> None:
    """Add to a parser ``--out``, a path by custom with this suffix, and ``--overwrite``."""
    parser.add_argument('--out', type=Path, required=True, help=f'file to write: *{suffix}')
    parser.add_argument('--overwrite', action='store_true', help='replace --out where it exists')


def refuse_existing(options: argparse.Namespace) -> None:
    """Raise ``FileExistsError``, before any work, where ``--out`` may not be replaced."""
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f'{options.out} exists; --overwrite replaces it.')
