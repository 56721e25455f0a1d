"""What every command-line tool does around its work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path


def one_line_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Let bad input end a tool in one line and exit status 2 instead of a traceback.

    Args:
        main: takes the arguments (None: those of the process) and returns the exit status. What
            it raises as ``ValueError`` or ``OSError`` is the user's to mend; the rest is ours.
    """
    tool = Path(main.__code__.co_filename).stem

    @wraps(main)
    def guarded(args: Sequence[str] | None = None) -> int:
        try:
            return main(args)
        except (ValueError, OSError) as error:
            print(f'{tool}: {error}', file=sys.stderr)
            return 2

    return guarded
