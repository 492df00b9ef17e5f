"""Does raising a factor move predictions, and always the same way?

Where raising a factor takes a picture to one class as often as it takes another picture from it, the model
is unsteady; where it moves pictures to one class and away from another, the factor is evidence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from candling.statistics import Estimate, resampled_sums, sums_by_source

__all__ = ["directed", "folds", "mean_by_source", "separation", "trend"]

Array = NDArray[np.float64]
Classes = NDArray[np.int64]


def folds(sources: Sequence[Hashable], seed: int) -> NDArray[np.bool_]:
    """Which half (N,) each row is in: half of the sources at random, all rows of one in the same half."""
    order = {source: place for place, source in enumerate(dict.fromkeys(sources))}
    half = np.random.default_rng([seed, 1]).permutation(len(order)) % 2 == 0
    return np.asarray(half[[order[source] for source in sources]])


def directed(low: Classes, high: Classes, half: NDArray[np.bool_], classes: int) -> Array:
    """How far each picture moves along with the others, (N,), from -1 to 1.

    The mean is the distance in total variation between the predictions at a low and at a high dose: 1 where
    all move from some classes to others, 0 where none move or as many move back. Which classes gain is
    read off the other half of the sources, so that chance has no direction: without an effect the mean is 0
    on average, where the plain distance, which is an absolute value, would be above.

    Parameters
    ----------
    low, high
        Predicted class (N,) at the two doses.
    half
        bool (N,), see `folds`.
    """
    rows = np.arange(len(low))
    moved = np.zeros((len(low), classes))
    moved[rows, high] += 1
    moved[rows, low] -= 1
    gains = [np.sign(moved[half == side].sum(0)) for side in (False, True)]
    other = np.where(half[:, None], gains[0], gains[1])
    return np.asarray((other * moved).sum(1) / 2)


def mean_by_source(
    values: Array, sources: Sequence[Hashable], *, confidence: float, resamples: int, seed: int
) -> Estimate:
    """The mean of (N,) values; its interval is a percentile bootstrap over whole sources."""
    sums = sums_by_source(np.stack([values, np.ones_like(values)], 1), sources)
    drawn = resampled_sums(sums, resamples=resamples, seed=seed)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [tail, 100 - tail])
    return Estimate(float(values.mean()), float(low), float(high), len(sums))


def trend(levels: Array) -> float:
    """Mean over pictures of Spearman's correlation of evidence (N, L) with the order of its L levels.

    From -1 to 1; a picture whose evidence never changes counts as 0.
    """
    ranks = rankdata(levels, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    order = np.arange(levels.shape[1]) - (levels.shape[1] - 1) / 2
    scale = np.sqrt(np.square(ranks).sum(1) * np.square(order).sum())
    return float(np.divide(ranks @ order, scale, out=np.zeros(len(ranks)), where=scale > 0).mean())


def separation(values: Array, classes: Classes, upper: int, lower: int) -> Estimate | None:
    """How well a measured value tells two classes apart: the area under the ROC curve, in [0, 1].

    It is the probability that a picture of `upper` has the larger value than one of `lower`, with the 95%
    interval of Hanley & McNeil (1982, Radiology 143). None where a class has fewer than five pictures.
    """
    over, under = values[classes == upper], values[classes == lower]
    if min(len(over), len(under)) < 5:
        return None
    ranks = rankdata(np.concatenate([over, under]))[: len(over)]
    area = float((ranks.sum() - len(over) * (len(over) + 1) / 2) / (len(over) * len(under)))
    spread = (
        area * (1 - area)
        + (len(over) - 1) * (area / (2 - area) - area**2)
        + (len(under) - 1) * (2 * area**2 / (1 + area) - area**2)
    )
    reach = 1.96 * float(np.sqrt(max(spread, 0.0) / (len(over) * len(under))))
    return Estimate(area, max(area - reach, 0.0), min(area + reach, 1.0), len(over) + len(under))
