"""A progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from mmengine.utils import ProgressBar


def with_progress(items: Collection, visible: bool = True) -> Iterator:
    """The items, with a bar that moves after each, if ``visible``; on a terminal only."""
    if not (visible and len(items) and sys.stdout.isatty()):
        yield from items
        return
    bar = ProgressBar(len(items))
    for item in items:
        yield item
        bar.update()
    print(flush=True)  # ends the bar's line
