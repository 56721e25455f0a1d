"""Distractors: classes that compete and are never given out.

Every (query, class) pair is scored by itself, so a further class takes nothing from the scores of
the others. What makes a distractor compete is a rule of ours: it is a negative of all classes that
are wanted (see ``models/dense_heads/negative_prompts.py``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from ..utils.near_names import quote_with_near

P = ParamSpec('P')
T = TypeVar('T')


def takes_negatives(method: Callable[P, T]) -> Callable[P, T]:
    """Until 0.8, let a method take ``negatives=``, the name of ``distractors=`` in 0.6."""

    @wraps(method)
    def renamed(*args: P.args, **kwargs: P.kwargs) -> T:
        if 'negatives' in kwargs:
            message = 'negatives= is now distractors=; the old name goes in 0.8.'
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            kwargs['distractors'] = kwargs.pop('negatives')
        return method(*args, **kwargs)

    return renamed


def split_distractors(
    class_names: Sequence[str], distractors: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of all names, which may repeat: those wanted, by first appearance, and the distractors.

    Raises:
        ValueError: a distractor has no prompt, or no other class is left.
    """
    if isinstance(distractors, str):
        raise ValueError(f'distractors is a list of class names, got the text {distractors!r}.')
    known = list(dict.fromkeys(class_names))
    for name in distractors:
        if name not in known:
            hint = quote_with_near(name, known, n=1, cutoff=0.0)
            raise ValueError(f'There is no prompt of the distractor {hint}.')
    wanted = tuple(name for name in known if name not in distractors)
    if not wanted:
        raise ValueError('All classes are distractors; nothing is left to detect.')
    return wanted, tuple(dict.fromkeys(distractors))
