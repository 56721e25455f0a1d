"""A progress bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator

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


def lines_of_steps(seconds: float = 60) -> Callable[[int, int], None]:
    """What prints a line every so many seconds when it is called as a bar is; for log files."""
    last = [time.monotonic()]

    def show(done: int, steps: int) -> None:
        if time.monotonic() - last[0] >= seconds:
            last[0] = time.monotonic()
            print(f'{done} of {steps}', flush=True)

    return show


def bar_of_steps(visible: bool = True) -> Callable[[int, int], None] | None:
    """What moves a bar when it is called with the steps done and all steps; None without a bar."""
    if not (visible and sys.stdout.isatty()):
        return None
    bars: list[ProgressBar] = []  # one, from the first step on

    def show(done: int, steps: int) -> None:
        if not bars:
            bars.append(ProgressBar(steps))
        bars[0].update(done - bars[0].completed)
        if done == steps:
            print(flush=True)

    return show
