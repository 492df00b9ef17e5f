"""The null: what prototypes of unrelated classes do, and what is more than that.

A class is excited by many a picture that was optimised for something else: by its contrast, a colour that
both happen to like, or because the network knows no such pictures. How much, its own network decides, so the
null is not zero but what the prototypes of the other classes do to it: they climbed unrelated objectives in
the same network with the same settings. The unit is the class, not the seed: seeds of a class show the same
thing, so a hundred of them tell no more of what *another* class would do.

`pairs_beyond_unrelated` holds m(c,k) against the pairs that share just one class with it, m(c,j) and m(k,j),
and `beyond_unrelated` e(c→k) against what else excites k and what else c excites, whichever is less telling.
Both ask with Student's prediction interval how far a next value of a sample may lie: with the sample's mean
and standard deviation a and s of n values, (x - a) / (s · sqrt(1 + 1/n)) follows t with n - 1 degrees of
freedom. Ranks would assume less, but the largest of all pairs is the largest in any network. False
discoveries are controlled after Benjamini and Hochberg 1995.

m rather than the mean of both directions, because shared features excite both ways. What excites one way only
is common where a prototype barely excites its own class, and heavy-tailed; of such values a minimum is left
without the tail that would be taken for a finding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, t

__all__ = ["FEWEST", "beyond_unrelated", "discovered", "pairs_beyond_unrelated"]

Array = NDArray[np.float64]

FEWEST = 4  # values of unrelated classes that a null is made of
_ROUNDING = 1e-6  # a spread below which values do not differ


def pairs_beyond_unrelated(mutual: Array) -> Array:
    """p-values (K, K), symmetric, of 'm(c,k) is more than pairs with another class reach'.

    Parameters
    ----------
    mutual
        (K, K), symmetric; NaN where there is no value.

    Returns
    -------
    NaN on the diagonal, where there is no value, and where fewer than `FEWEST` others have one, so for fewer
    than four classes.
    """
    values = _off_diagonal(mutual)
    sums = [part.sum(1) for part in _moments(values)]
    # Both classes' pairs, in each of which the pair itself is once.
    shared = [one[:, None] + one[None] - 2 * part for one, part in zip(sums, _moments(values), strict=True)]
    return _next_of(values, *shared)


def beyond_unrelated(value: Array) -> Array:
    """p-values (K, K) of 'e(c→k) is more than what else excites k, and than what else c excites'.

    The larger of the two p-values, as both must be so (intersection-union test, Berger 1982).

    Parameters
    ----------
    value
        (K, K), directed; NaN where there is no value.

    Returns
    -------
    NaN as in `pairs_beyond_unrelated`, so for fewer than six classes.
    """
    values = _off_diagonal(value)
    moments = _moments(values)
    tested = [
        _next_of(values, *(part.sum(axis, keepdims=True) - part for part in moments)) for axis in (0, 1)
    ]
    return np.maximum(*tested)


def discovered(p: Array) -> Array:
    """p-values of any shape with the false-discovery rate controlled over all that are not NaN."""
    q = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


def _off_diagonal(matrix: Array) -> Array:
    """A copy with NaN on the diagonal, around zero, so that sums of squares keep their digits."""
    values = np.array(matrix, dtype=np.float64)
    np.fill_diagonal(values, np.nan)
    known = ~np.isnan(values)
    return values - values[known].mean() if known.any() else values


def _moments(values: Array) -> tuple[Array, Array, Array]:
    """What counts, sums and sums of squares are added up from; nothing where there is no value."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    return known.astype(np.float64), filled, filled**2


def _next_of(values: Array, count: Array, total: Array, squares: Array) -> Array:
    """How often a next value of a normal sample with these sums is at least as large."""
    enough = (count >= FEWEST) & ~np.isnan(values)
    n = np.where(enough, count, FEWEST)
    mean = total / n
    spread = np.sqrt(np.maximum((squares - n * mean**2) / (n - 1), _ROUNDING**2))
    p: Array = t.sf((values - mean) / (spread * np.sqrt(1 + 1 / n)), n - 1)
    return np.where(enough, p, np.nan)
