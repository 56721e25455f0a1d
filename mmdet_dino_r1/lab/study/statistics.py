"""Means over seeds, and paired differences with their intervals (textbook statistics).

A difference is taken at the same seed, so that what a seed does to both runs cancels. Its interval
is Student's, with n - 1 degrees of freedom: differences are taken to be about normal, seeds to be
independent. Nothing is corrected for the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from statistics import fmean, stdev

from scipy.special import stdtrit

CONFIDENCE = 0.95


def summarise(values: Mapping[int, float]) -> dict | None:
    """``mean``, ``std`` (by n - 1; None for one), ``n``, ``values``; without a seed None."""
    if not values:
        return None
    found = list(values.values())
    std = stdev(found) if len(found) > 1 else None
    return dict(mean=fmean(found), std=std, n=len(found), values=dict(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict | None:
    """How far a variant lies above its baseline, over the seeds in common; None without one.

    ``mean``, ``std`` and ``n`` of the differences; ``low`` and ``high``, the ends of the mean's
    interval (None for one seed); ``seeds``, ascending; ``values``, in their order; ``verdict``.
    """
    seeds = sorted(values.keys() & baseline.keys())
    told = summarise({seed: values[seed] - baseline[seed] for seed in seeds})
    if told is None:
        return None
    told |= dict(low=None, high=None, seeds=seeds, values=list(told['values'].values()))
    if told['n'] > 1:
        quantile = float(stdtrit(told['n'] - 1, (1 + CONFIDENCE) / 2))
        half = quantile * told['std'] / sqrt(told['n'])
        told |= dict(low=told['mean'] - half, high=told['mean'] + half)
    return told | dict(verdict=verdict(told['low'], told['high']))


def verdict(low: float | None, high: float | None) -> str:
    """'higher' or 'lower' where an interval excludes 0, else 'not told apart', never 'equal'."""
    if low is not None and low > 0:
        return 'higher'
    return 'lower' if high is not None and high < 0 else 'not told apart'
