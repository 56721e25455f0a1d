"""Means over seeds, and paired differences with their intervals (textbook statistics).

A difference is taken at the same seed: the two runs begin with the same weights and are tested with
the same exemplars, so that what a seed does to both cancels. Its interval is Student's, with n - 1
degrees of freedom. That assumes

- that the differences are about normally distributed;
- that seeds are independent of one another.

An interval holds for its one comparison. Nothing is corrected for the number of comparisons: of
twenty where there is nothing to find, one 95 % interval excludes 0 by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """What several seeds have given.

    Attributes:
        mean: over the seeds.
        std: standard deviation of a seed (divided by n - 1); nan for one.
        n: number of seeds.
    """

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class PairedDifference(Summary):
    """How far a variant lies above its baseline: a summary of the seeds' differences.

    Attributes:
        low: end of the interval of the mean; nan for one seed.
        high: its other end; nan for one seed.
        seeds: those in common, ascending.
    """

    low: float
    high: float
    seeds: tuple[int, ...]


def summarise(values: Iterable[float]) -> Summary:
    """Mean and standard deviation.

    Args:
        values: one of each seed.

    Raises:
        ValueError: there is none.
    """
    values = np.array(list(values), float)
    if not len(values):
        raise ValueError('There is no value to summarise.')
    std = float(values.std(ddof=1)) if len(values) > 1 else nan
    return Summary(float(values.mean()), std, len(values))


def paired_difference(
    variant: Mapping[int, float], baseline: Mapping[int, float], confidence: float = CONFIDENCE
) -> PairedDifference:
    """Mean difference over the seeds in common, with Student's t interval.

    What it assumes stands at the top of this file.

    Args:
        variant: values by seed.
        baseline: values by seed, of what it is compared with.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: no seed is in common, or the confidence is none.
    """
    if not 0 < confidence < 1:
        raise ValueError(f'A confidence lies between 0 and 1, like 0.95; this is {confidence}.')
    seeds = tuple(sorted(set(variant) & set(baseline)))
    if not seeds:
        raise ValueError(
            f'The variant has {_seeds(variant)} and the baseline {_seeds(baseline)}: none in '
            'common, so there is no paired difference. Run both with the same seeds.'
        )
    told = summarise(variant[seed] - baseline[seed] for seed in seeds)
    half = nan
    if told.n > 1:
        half = float(stdtrit(told.n - 1, (1 + confidence) / 2)) * told.std / sqrt(told.n)
    ends = (told.mean - half, told.mean + half)
    return PairedDifference(told.mean, told.std, told.n, *ends, seeds)


def verdict(difference: PairedDifference) -> str:
    """'higher' or 'lower' where the interval excludes 0, else 'not told apart'.

    The last does not mean equal; one seed alone tells nothing apart.
    """
    if difference.low > 0:
        return 'higher'
    if difference.high < 0:
        return 'lower'
    return 'not told apart'


def _seeds(values: Mapping[int, float]) -> str:
    if not values:
        return 'no seed'
    return f'seed{"s" * (len(values) > 1)} {", ".join(map(str, sorted(values)))}'
