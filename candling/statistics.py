"""Intervals for proportions and means; every 95% interval in candling comes from here.

Rows that share a source (crops of one photograph, frames of one film) are one sample: where `sources` are
given, whole sources are resampled, and an interval that counts is that of as many sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

__all__ = [
    "Estimate",
    "bootstrap",
    "effective_size",
    "mean",
    "mean_over_pairs",
    "proportion",
    "ratio_of_means",
    "resampled_sums",
    "share",
    "sums_by_source",
    "wilson",
]

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


def mean_over_pairs(each: Array) -> Estimate | None:
    """The mean over all pairs of n things, of the mean over each one's pairs (n,); None of fewer than three.

    Each pair counts for both of its things, so that these are no independent sample: the interval is that of
    the jackknife's pseudo-values (Arvesen, "Jackknifing U-statistics", 1969, section 2).
    """
    n = len(each)
    if n < 3:
        return None
    whole = float(each.mean())
    without = (n * whole - 2 * each) / (n - 2)
    return mean(n * whole - (n - 1) * without)


def ratio_of_means(numerator: Array, denominator: Array) -> Estimate:
    """Mean of `numerator` over mean of `denominator`, both (N,), rows resampled together."""
    pairs = np.stack([numerator, denominator], 1).astype(np.float64)
    return bootstrap(lambda sample: sample[..., 0].mean(1) / sample[..., 1].mean(1), pairs)


def wilson(p: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval (Wilson 1927) of a share `p` seen in a sample worth `n` independent rows."""
    z = float(norm.ppf((1 + confidence) / 2))
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At 0 and 1 an end is exact, but not in floating point.
    return (0.0 if p == 0 else max(centre - half, 0.0)), (1.0 if p == 1 else min(centre + half, 1.0))


def effective_size(sources: Sequence[Hashable]) -> float:
    """How many independent rows N rows are worth whose sources are these, at the least.

    Rows of one source count as if they were all alike: m_s rows from each source s are worth
    (Σ m_s)² / Σ m_s² (Kish 1965). That is N where all sources differ, and 0 of no rows.
    """
    sizes = np.array(list(Counter(sources).values()), dtype=np.float64)
    return float(sizes.sum() ** 2 / np.square(sizes).sum()) if len(sizes) else 0.0


def share(
    right: Array | NDArray[np.bool_], sources: Sequence[Hashable] | None = None, *, confidence: float = 0.95
) -> Estimate:
    """The share of (N,) true values with its Wilson interval.

    Parameters
    ----------
    right
        (N,), bool or 0 and 1.
    sources
        N, what each row was taken from; the interval is that of `effective_size` rows and `n` counts
        sources. None: every row is a sample of its own.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    right = np.asarray(right, dtype=np.float64)
    if not len(right):
        raise ValueError("a share needs at least one row")
    if sources is None:
        return proportion(int(right.sum()), len(right), confidence=confidence)
    p = float(right.mean())
    ends = wilson(p, effective_size(sources), confidence=confidence)
    return Estimate(p, *ends, len(set(sources)))


def sums_by_source(values: Array, sources: Sequence[Hashable]) -> Array:
    """Sums (S, …) of `values` (N, …) over the rows of each source, sources in order of appearance."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(sources):
        raise ValueError(f"{len(values)} rows need as many sources, got {len(sources)}")
    order = {source: row for row, source in enumerate(dict.fromkeys(sources))}
    sums = np.zeros((len(order), *values.shape[1:]))
    np.add.at(sums, [order[source] for source in sources], values)
    return sums


def resampled_sums(sums: Array, *, resamples: int = 2000, seed: int = 0) -> Array:
    """Column sums (resamples, …) of rows (S, …) drawn with replacement, S a resample.

    What a bootstrap of ratios, or of anything else that is made of sums, needs: it costs one matrix product
    rather than a copy of every resample.
    """
    count = len(sums)
    flat = np.asarray(sums, dtype=np.float64).reshape(count, -1)
    generator = np.random.default_rng(seed)
    out = np.empty((resamples, flat.shape[1]))
    batch = max(1, 4_000_000 // count)
    for start in range(0, resamples, batch):
        rows = generator.integers(0, count, (min(batch, resamples - start), count))
        offsets = count * np.arange(len(rows))[:, None]
        drawn = np.bincount((rows + offsets).ravel(), minlength=rows.size).reshape(rows.shape)
        out[start : start + len(rows)] = drawn @ flat
    return out.reshape(resamples, *np.shape(sums)[1:])
