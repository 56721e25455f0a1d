"""Random draws that depend on where a run is, not on what it drew before (ours)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*parts: int) -> int:
    """A seed below 2**32 for one place (run's seed, step, rank …), unrelated to those of others."""
    # NumPy takes no notice of zeros at the end; with their number told apart they count
    return int(np.random.SeedSequence((len(parts), *parts)).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch, CUDA's too; ``seed`` < 2**32."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded_on_cpu(seed: int) -> Iterator[None]:
    """Within it the global CPU generators start from a seed < 2**32; then they are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
