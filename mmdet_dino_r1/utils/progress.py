"""A progress bar on a terminal."""

from __future__ import annotations

import sys
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
