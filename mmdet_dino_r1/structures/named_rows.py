"""Checks shared by what keeps one row of a tensor per class name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..utils.near_names import quote_with_near

NAMED_AT_MOST = 10


def repeated_names(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def names_not_finite(names: Sequence[str], rows: Tensor) -> list[str]:
    """Names of rows that hold NaN or infinity; ``rows`` is (len(names), dim)."""
    broken = ~torch.isfinite(rows).all(dim=1)
    return [name for name, bad in zip(names, broken.tolist(), strict=True) if bad]


def with_nearest(missing: Sequence[str], known: Collection[str]) -> str:
    """The first few missing names, each with the known one nearest to it, and how many more."""
    hints = [quote_with_near(name, known, n=1, cutoff=0.0) for name in missing[:NAMED_AT_MOST]]
    more = f' and {len(missing) - len(hints)} more' if len(missing) > len(hints) else ''
    return ', '.join(hints) + more
