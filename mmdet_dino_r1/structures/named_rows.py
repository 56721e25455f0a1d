"""Checks shared by what keeps one row of a tensor per class name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..utils.near_names import quote_with_near, some


def check_named_rows(what: str, names: Sequence[str], rows: Tensor) -> None:
    """ValueError where ``rows`` (len(names), dim) of a ``what`` are not finite, one a name.

    There must be a name, and none may occur twice.
    """
    if len(names) == 0:
        raise ValueError(f'A {what} needs at least one class.')
    shape = tuple(rows.shape)
    if len(shape) != 2 or shape[0] != len(names):
        raise ValueError(
            f'A {what} of {len(names)} classes needs as many embeddings, ({len(names)}, dim), got '
            f'{shape}.'
        )
    if repeated := repeated_names(names):
        raise ValueError(f'Class names appear twice in a {what}: {repeated}')
    broken = ~torch.isfinite(rows).all(dim=1)
    if bad := [repr(name) for name, is_bad in zip(names, broken.tolist(), strict=True) if is_bad]:
        raise ValueError(f'Embeddings of a {what} are not finite numbers: {some(bad)}')


def repeated_names(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def with_nearest(missing: Sequence[str], known: Collection[str]) -> str:
    """The first few missing names, each with the known one nearest to it, and how many more."""
    shown = [quote_with_near(name, known, n=1, cutoff=0.0) for name in missing[:10]]
    return some([*shown, *missing[10:]])
