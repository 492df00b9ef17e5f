"""Intervals for proportions and means; every 95% interval in candling comes from here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

__all__ = ["Estimate", "bootstrap", "mean", "proportion", "ratio_of_means"]

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its confidence interval and sample size."""

    value: float
    low: float
    high: float
    n: int


def proportion(successes: int, n: int, *, confidence: float = 0.95) -> Estimate:
    """A proportion with the Wilson score interval (Wilson 1927).

    Raises
    ------
    ValueError
        If `n` is not positive or `successes` lies outside 0…n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)


def bootstrap(
    statistic: Callable[[Array], Array],
    sample: Array,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Percentile bootstrap (Efron 1979) over the rows of `sample`.

    Parameters
    ----------
    statistic
        Maps (B, N, …) to (B,): applied to all resamples at once.
    sample
        (N, …): one row an independent unit (an image, a seed).
    """
    if len(sample) < 1:
        raise ValueError("a bootstrap needs at least one row")
    rows = np.random.default_rng(seed).integers(0, len(sample), (resamples, len(sample)))
    values = statistic(sample[rows])
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return Estimate(float(statistic(sample[None])[0]), float(low), float(high), len(sample))


def mean(values: Array) -> Estimate:
    """The mean of (N,) values with a bootstrap interval."""
    return bootstrap(lambda sample: sample.mean(1), np.asarray(values, dtype=np.float64))


def ratio_of_means(numerator: Array, denominator: Array) -> Estimate:
    """Mean of `numerator` over mean of `denominator`, both (N,), rows resampled together."""
    pairs = np.stack([numerator, denominator], 1).astype(np.float64)
    return bootstrap(lambda sample: sample[..., 0].mean(1) / sample[..., 1].mean(1), pairs)
