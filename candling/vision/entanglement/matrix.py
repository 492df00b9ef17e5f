"""The matrix of entanglement, directed and of pairs, from logits of prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from candling.errors import DataError, ParamsError
from candling.statistics import Estimate
from candling.vision.entanglement.null import beyond_unrelated, discovered, pairs_beyond_unrelated

__all__ = ["Entanglement", "entanglement"]

Array = NDArray[np.float64]

_EXCITED = 1.0  # standard deviations of natural logits above their mean
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Entanglement:
    """e(c→k) of the classes asked for, with 95% intervals over seeds.

    classes: places of the K classes among the logits. value, low, high: float64 (K, K), rows the class whose
    prototypes are looked at, columns the class that they excite; NaN in rows without a prototype that excites
    its own class. n: int64 (K,), prototypes that count.
    """

    classes: tuple[int, ...]
    value: Array
    low: Array
    high: Array
    n: NDArray[np.int64]

    @cached_property
    def mutual(self) -> Array:
        """m(c,k), how far each of a pair excites the other: (K, K), symmetric, 1 on the diagonal."""
        return np.minimum(self.value, self.value.T)

    @cached_property
    def p(self) -> Array:
        """p-values (K, K) of 'c excites k more than unrelated prototypes do'; see `null`."""
        return beyond_unrelated(self.value)

    @cached_property
    def q(self) -> Array:
        """`p` with the false-discovery rate controlled over all of them."""
        return discovered(self.p)

    @cached_property
    def pair_p(self) -> Array:
        """p-values (K, K), symmetric, of 'c and k excite each other more than unrelated classes do'."""
        return pairs_beyond_unrelated(self.mutual)

    @cached_property
    def pair_q(self) -> Array:
        """`pair_p` with the false-discovery rate controlled over all pairs."""
        once = np.where(np.triu(np.ones_like(self.pair_p, dtype=bool), 1), self.pair_p, np.nan)
        upper = discovered(once)
        return np.where(np.isnan(upper), upper.T, upper)

    def estimate(self, c: int, k: int) -> Estimate | None:
        """e of row `c` and column `k` with its interval; None where nothing could be computed."""
        if not self.n[c]:
            return None
        return Estimate(
            float(self.value[c, k]), float(self.low[c, k]), float(self.high[c, k]), int(self.n[c])
        )

    def mutual_estimate(self, c: int, k: int) -> Estimate | None:
        """m of a pair; its interval ends at the smaller ends of both directions, n is the smaller too.

        The minimum grows with both, so that it lies in there whenever both directions lie in theirs.
        """
        if not (self.n[c] and self.n[k]):
            return None
        low, high = (float(min(ends[c, k], ends[k, c])) for ends in (self.low, self.high))
        return Estimate(float(self.mutual[c, k]), low, high, int(min(self.n[c], self.n[k])))

    def strongest_pair(self) -> tuple[int, int, Estimate] | None:
        """The most entangled directed pair of two classes, or None where nothing could be computed."""
        others = np.where(np.eye(len(self.n), dtype=bool) | np.isnan(self.value), -np.inf, self.value)
        c, k = (int(place) for place in np.unravel_index(others.argmax(), others.shape))
        estimate = self.estimate(c, k)
        return None if c == k or estimate is None else (c, k, estimate)

    def pairs(self) -> NDArray[np.int64]:
        """Pairs (P, 2) with a value, the strongest first: rows of c < k."""
        c, k = np.triu_indices(len(self.n), 1)
        known = ~np.isnan(self.mutual[c, k])
        c, k = c[known], k[known]
        order = np.argsort(-self.mutual[c, k], kind="stable")
        return np.stack([c[order], k[order]], 1)

    def significant(self, rate: float = 0.05) -> NDArray[np.int64]:
        """Pairs (P, 2) that excite each other more than unrelated classes do, the strongest first.

        Parameters
        ----------
        rate
            Share of them that may be false on average, in (0, 1).
        """
        pairs = self.pairs()
        return pairs[self.pair_q[pairs[:, 0], pairs[:, 1]] <= rate]


def entanglement(
    prototype_logits: Tensor,
    prototype_classes: Tensor,
    natural_logits: Tensor,
    *,
    classes: Sequence[int] | None = None,
) -> Entanglement:
    """The class × class matrix.

    Only prototypes with z_c(p) of at least 1 count. One that excites its own class less than that lies among
    ordinary pictures and says nothing of the class; and the ratio, divided by next to nothing, would be made
    of rounding.

    Parameters
    ----------
    prototype_logits
        (R, K) logits of prototypes.
    prototype_classes
        (R,) the class of each.
    natural_logits
        (N, K) logits of natural pictures, which set the scale; N at least 2.
    classes
        Rows and columns of the matrix, two at least; None: all K. Logits are centred on the mean over all K.

    Raises
    ------
    ParamsError
        If fewer than two classes are asked for, one of them twice, or one that there is not.
    DataError
        If the logits do not fit together.
    """
    if natural_logits.dim() != 2 or len(natural_logits) < 2:
        raise DataError(
            f"natural logits must be (N, K) of two pictures at least, not {tuple(natural_logits.shape)}"
        )
    count = natural_logits.shape[1]
    if prototype_logits.shape != (len(prototype_classes), count):
        raise DataError(
            f"logits of {len(prototype_classes)} prototypes must be of {count} classes as those of natural "
            f"pictures, not of shape {tuple(prototype_logits.shape)}"
        )
    chosen = tuple(range(count) if classes is None else classes)
    if len(set(chosen)) < max(2, len(chosen)):
        raise ParamsError("entanglement is of two different classes or more; name each of them once")
    if not all(0 <= c < count for c in chosen):
        raise ParamsError(f"of the classes {chosen} there are only 0 to {count - 1}")

    def centred(values: Tensor) -> Tensor:
        return values.double() - values.double().mean(1, keepdim=True)

    natural = centred(natural_logits)
    z = ((centred(prototype_logits) - natural.mean(0)) / natural.std(0).clamp_min(1e-12)).cpu().numpy()
    owners = prototype_classes.cpu().numpy()
    columns = np.array(chosen)
    value, low, high = (np.full((len(chosen), len(chosen)), np.nan) for _ in range(3))
    n = np.zeros(len(chosen), dtype=np.int64)
    for row, c in enumerate(chosen):
        own = z[owners == c]
        own = own[own[:, c] >= _EXCITED]
        n[row] = len(own)
        if len(own):
            value[row], low[row], high[row] = _means(own[:, columns] / own[:, [c]])
    return Entanglement(chosen, value, low, high, n)


@lru_cache(maxsize=8)
def _resamples(seeds: int) -> tuple[Array, NDArray[np.int64]]:
    """Resamples of so many seeds that differ, as shares (D, seeds), and how often each is drawn (D,)."""
    rows = np.random.default_rng(0).integers(0, seeds, (_RESAMPLES, seeds))
    drawn = np.zeros((_RESAMPLES, seeds), dtype=np.int64)
    np.add.at(drawn, (np.arange(_RESAMPLES)[:, None], rows), 1)
    distinct, times = np.unique(drawn, axis=0, return_counts=True)
    return distinct / seeds, times


def _means(ratios: Array) -> tuple[Array, Array, Array]:
    """Means of columns (S, K) with 95% bootstrap intervals, as `candling.statistics.mean` has them.

    A few seeds have few resamples that differ, which is what makes a thousand columns quick.
    """
    shares, times = _resamples(len(ratios))
    means = shares @ ratios
    order = means.argsort(0)
    means = np.take_along_axis(means, order, 0)
    until = times[order].cumsum(0)

    def quantile(part: float) -> Array:
        place = part * (_RESAMPLES - 1)
        below, above = (
            np.take_along_axis(means, (until <= rank).sum(0)[None], 0)[0]
            for rank in (int(place), int(place) + 1)
        )
        return np.asarray(below + (place - int(place)) * (above - below))

    return ratios.mean(0), quantile(0.025), quantile(0.975)
