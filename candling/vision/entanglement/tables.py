"""Entanglement as tables, sparse: of a thousand classes only what is strong is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from candling.vision.entanglement.matrix import Entanglement

__all__ = ["TOP", "directed_table", "pair_table"]

TOP = 20  # classes that each class is listed with


def directed_table(found: Entanglement, names: Sequence[str], *, top: int = TOP) -> pd.DataFrame:
    """The `top` classes that each class's prototypes excite most, in the order of the classes.

    Parameters
    ----------
    found
        Of K classes.
    names
        Of these K.
    top
        Of each class, 1 or more; all of them where there are no more.

    Returns
    -------
    Columns from, to (names), value, low, high (e with its interval), n (prototypes), p, q (that c excites k
    more than unrelated prototypes do), mutual, pair_p, pair_q (m and that they excite each other so).
    """
    count = len(found.n)
    rows = np.flatnonzero(found.n > 0)
    others = np.where(np.eye(count, dtype=bool), -np.inf, found.value)[rows]
    columns = np.argsort(-others, axis=1, kind="stable")[:, : min(top, count - 1)]
    c, k = np.repeat(rows, columns.shape[1]), columns.ravel()
    titles = np.array(list(names), dtype=object)
    return pd.DataFrame(
        {
            "from": titles[c],
            "to": titles[k],
            **{name: getattr(found, name)[c, k] for name in ("value", "low", "high")},
            "n": found.n[c],
            **{name: getattr(found, name)[c, k] for name in ("p", "q", "mutual", "pair_p", "pair_q")},
        }
    )


def pair_table(found: Entanglement, names: Sequence[str], *, top: int | None = None) -> pd.DataFrame:
    """Pairs of classes, the strongest first.

    Parameters
    ----------
    found, names
        As for `directed_table`.
    top
        How many pairs; None: all.

    Returns
    -------
    Columns class, other (names), mutual (m), there, back (e in both directions), p, q.
    """
    pairs = found.pairs()[:top]
    c, k = pairs[:, 0], pairs[:, 1]
    titles = np.array(list(names), dtype=object)
    return pd.DataFrame(
        {
            "class": titles[c],
            "other": titles[k],
            "mutual": found.mutual[c, k],
            "there": found.value[c, k],
            "back": found.value[k, c],
            "p": found.pair_p[c, k],
            "q": found.pair_q[c, k],
        }
    )
