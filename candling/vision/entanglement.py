"""Entanglement: does the prototype of class c also excite class k?

    e(c→k) = mean over prototypes p of c of  z_k(p) / z_c(p)

where z_k(x) is the centred logit of k (logit minus the mean over classes) in standard deviations from its
mean over the eval set. It does not change when logits are scaled or shifted. 1 means that c's prototype
excites k as much as c itself, 0 not at all; with two classes e is -1 by construction.

Only prototypes with z_c(p) of at least 1 count. One that excites its own class less than that lies among
ordinary pictures and says nothing of the class; and the ratio, divided by next to nothing, would be made of
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from candling.statistics import Estimate, mean

__all__ = ["Entanglement", "entanglement"]

_EXCITED = 1.0  # standard deviations of natural logits above their mean


@dataclass(frozen=True)
class Entanglement:
    """`matrix[c][k]` is e(c→k) with its interval over seeds, of the classes asked for in their order.

    None where no prototype of c excites c.
    """

    matrix: tuple[tuple[Estimate | None, ...], ...]

    def strongest_pair(self) -> tuple[int, int, Estimate] | None:
        """The most entangled pair of two different classes, or None where nothing could be computed."""
        pairs = [
            (c, k, e)
            for c, row in enumerate(self.matrix)
            for k, e in enumerate(row)
            if c != k and e is not None
        ]
        return max(pairs, key=lambda pair: pair[2].value, default=None)


def entanglement(
    prototype_logits: Tensor,
    prototype_classes: Tensor,
    natural_logits: Tensor,
    *,
    classes: Sequence[int] | None = None,
) -> Entanglement:
    """The directed class × class matrix.

    Parameters
    ----------
    prototype_logits
        (R, K) logits of prototypes.
    prototype_classes
        (R,) the class of each.
    natural_logits
        (N, K) logits of the eval set, which set the scale.
    classes
        Rows and columns of the matrix; None: all K. Logits are centred on the mean over all K.
    """

    def centred(values: Tensor) -> Tensor:
        return values.double() - values.double().mean(1, keepdim=True)

    natural = centred(natural_logits)
    z = (centred(prototype_logits) - natural.mean(0)) / natural.std(0).clamp_min(1e-12)
    chosen = list(range(natural.shape[1]) if classes is None else classes)
    rows = []
    for c in chosen:
        own = z[prototype_classes == c]
        own = own[own[:, c] >= _EXCITED]
        ratios = (own / own[:, [c]]).numpy()
        rows.append(tuple(mean(ratios[:, k]) if len(ratios) else None for k in chosen))
    return Entanglement(tuple(rows))
