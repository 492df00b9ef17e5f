"""Does entanglement mean anything? Its rank correlation with confusions and with costs of attacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from candling.errors import DataError
from candling.statistics import Estimate

__all__ = ["confusions", "rank_correlation"]

Array = NDArray[np.float64]

_WORK = 20_000_000  # pairs that are ranked for one interval, about
_FEWEST = 4  # pairs of a correlation


def confusions(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: NDArray[np.int64]) -> Array:
    """Counts (K, K + 1) of held-out pictures of each class by what they are predicted as.

    Parameters
    ----------
    labels, predicted
        (N,) places among the logits.
    classes
        (K,) places of the classes that are looked at; the last column is of all others.

    Raises
    ------
    DataError
        If there are not as many predictions as labels.
    """
    if labels.shape != predicted.shape:
        raise DataError(f"{len(labels)} labels need as many predictions, not {len(predicted)}")
    place = {int(c): row for row, c in enumerate(classes)}
    rows = np.array([place.get(int(c), -1) for c in labels], dtype=np.int64)
    columns = np.array([place.get(int(c), len(classes)) for c in predicted], dtype=np.int64)
    counts = np.zeros((len(classes), len(classes) + 1))
    np.add.at(counts, (rows[rows >= 0], columns[rows >= 0]), 1.0)
    return counts


def rank_correlation(
    mutual: Array,
    *,
    counts: Array | None = None,
    costs: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate | None:
    """Spearman's rank correlation of m(c,k) with confusions or costs, over all pairs of classes.

    Of a pair's two directions the mean is taken: of the shares of pictures of either that are predicted as
    the other, or of the costs. The interval is a percentile bootstrap over classes, pairs following their
    classes (a vertex bootstrap, Snijders and Borgatti 1999), and for `counts` over the pictures of each class
    as well.

    Parameters
    ----------
    mutual
        m, (K, K), symmetric; NaN where there is no value.
    counts
        As `confusions` has them. Entangled pairs should be confused more: above 0.
    costs
        (K, K) of attacks on pictures of the row's class with the column's as target, such as the smallest ε;
        NaN where there is none. Entangled pairs should be cheaper: below 0.
    resamples
        Fewer are taken of so many classes that it would take minutes.

    Returns
    -------
    n is the number of classes. None if there are fewer than four pairs, or nothing differs between them.

    Raises
    ------
    DataError
        If not just one of `counts` and `costs` is given, or it is of another shape than `mutual`.
    """
    if (counts is None) == (costs is None):
        raise DataError("a rank correlation of entanglement is with counts or with costs, one of them")
    size = len(mutual)
    if counts is not None and counts.shape != (size, size + 1):
        raise DataError(f"confusions of {size} classes are ({size}, {size + 1}), not {counts.shape}")
    if costs is not None and costs.shape != mutual.shape:
        raise DataError(f"costs of attacks are of shape {costs.shape}, entanglement is of {mutual.shape}")
    other = _both(_shares(counts)) if counts is not None else _both(np.asarray(costs, dtype=np.float64))
    c, k = np.triu_indices(size, 1)
    value = _spearman(mutual[c, k], other[c, k])
    if np.isnan(value):
        return None
    generator = np.random.default_rng(seed)
    drawn = np.full(max(200, min(resamples, _WORK // len(c))), np.nan)
    for resample in range(len(drawn)):
        if counts is not None:
            other = _both(_shares(_redrawn(counts, generator)))
        rows = generator.integers(0, size, size)
        left, right = rows[c], rows[k]
        apart = left != right  # a class that is drawn twice is no pair with itself
        left, right = left[apart], right[apart]
        drawn[resample] = _spearman(mutual[left, right], other[left, right])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    known = ~np.isnan(mutual + other)
    np.fill_diagonal(known, False)
    return Estimate(float(value), float(low), float(high), int(known.any(0).sum()))


def _shares(counts: Array) -> Array:
    """Shares (K, K) of each class's pictures; NaN of classes without any."""
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts[:, :-1] / np.maximum(total, 1), np.nan)


def _redrawn(counts: Array, generator: np.random.Generator) -> Array:
    """The pictures of each class drawn anew, with replacement."""
    total = counts.sum(1)
    shares = counts / np.maximum(total, 1)[:, None]
    shares[total == 0, -1] = 1.0  # of a class without pictures none are drawn
    return generator.multinomial(total.astype(np.int64), shares).astype(np.float64)


def _both(directed: Array) -> Array:
    return (directed + directed.T) / 2


def _spearman(first: Array, second: Array) -> float:
    """Of those that both have; NaN of too few, or if one does not differ."""
    known = ~np.isnan(first + second)
    if known.sum() < _FEWEST:
        return float("nan")
    ranks = [rankdata(values[known]) for values in (first, second)]
    centred = [one - one.mean() for one in ranks]
    scale = np.sqrt(np.prod([(one**2).sum() for one in centred]))
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else float("nan")
