"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseClock:
    """Seconds spent in named phases; a phase inside another is taken off the outer one.

    On a CUDA device each change of phase waits for it, which a normal step does not: a step's
    total is therefore measured with the clock off.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: Counter = Counter()
        self.on = True

    def restart(self, on: bool = True) -> None:
        """Forget what was measured, and time phases from now on, or do not."""
        self.seconds.clear()
        self.on = on

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is done inside, less the phases inside that."""
        if not self.on:
            yield
            return
        start, within = self.now(), self.seconds.total()
        yield
        took = self.now() - start
        self.seconds[name] += took - (self.seconds.total() - within)

    def now(self) -> float:
        """Seconds, once the device has done all that was asked of it."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def watch(self, owner: object, method: str, name: str) -> None:
        """Time every call of ``owner.method`` as the phase ``name``."""
        original = getattr(owner, method)

        def timed(*args, **kwargs):
            with self.phase(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)
