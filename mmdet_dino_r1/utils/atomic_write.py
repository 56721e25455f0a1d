"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, in an existing folder; in the end it is moved there.

    Raises:
        OSError: it cannot be written, and is named; what was there before is still there.
    """
    # the machine's name, too: in containers all have the same few numbers
    unfinished = path.with_name(f'{path.name}.{platform.node()}.{os.getpid()}.tmp')
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # that of a full disk
    finally:
        unfinished.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write the ``content`` of a file to ``path``, whose folder exists.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(content)
