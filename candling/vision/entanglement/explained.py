"""Surprising pairs: entangled beyond what names, embeddings or a hierarchy explain.

Over all pairs of classes the ranks of m(c,k) are regressed by least squares on the ranks of each similarity
(ties share their mean rank, ranks are scaled to 0…1): the surprise of a pair is its residual, in standard
deviations of all residuals. A pair is surprising if it is significantly entangled and its surprise is 1 or
more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from candling.errors import ParamsError
from candling.vision.entanglement.matrix import Entanglement

__all__ = [
    "embedding_similarity",
    "hierarchy_similarity",
    "name_similarity",
    "surprise",
    "surprising",
]

Array = NDArray[np.float64]

_SURPRISING = 1.0  # standard deviations of residuals


def name_similarity(names: Sequence[str]) -> Array:
    """How much alike names are, (K, K) in [0, 1]: (shared words / all words + same last word) / 2.

    The last word is what an English name is a kind of: a wall clock and an analog clock are clocks, a clock
    tower is none. Words are letters and digits, in lower case.
    """
    words = [re.findall(r"[^\W_]+", name.lower()) for name in names]
    known = {word: place for place, word in enumerate(dict.fromkeys(word for one in words for word in one))}
    said = np.zeros((len(names), max(1, len(known))))
    last = np.full(len(names), -1)
    for row, one in enumerate(words):
        said[row, [known[word] for word in one]] = 1
        last[row] = known[one[-1]] if one else -1
    shared = said @ said.T
    every = said.sum(1)[:, None] + said.sum(1)[None] - shared
    heads = (last[:, None] == last[None]) & (last >= 0)
    return np.asarray((shared / np.maximum(every, 1) + heads) / 2)


def hierarchy_similarity(
    names: Sequence[str], hierarchy: Mapping[str, str], known: Sequence[str] | None = None
) -> Array:
    """How near classes stand in a hierarchy, (K, K) in [0, 1]: 2 · shared ancestors / ancestors of both.

    After Wu and Palmer 1994. With one level it is 1 for classes of the same parent and 0 for others; a class
    without a parent is like no other.

    Parameters
    ----------
    names
        Of the K classes.
    hierarchy
        Class to parent; a parent may have a parent of its own.
    known
        All classes that it may name; None: `names`.

    Raises
    ------
    ParamsError
        If it names what is neither a class nor a parent of one, or goes in a circle.
    """
    named = {*(names if known is None else known), *hierarchy.values()}
    strange = [name for name in hierarchy if name not in named]
    if strange:
        raise ParamsError(f"the hierarchy names {strange[0]!r}, which is no class and no parent of one")
    chains = []
    for name in names:
        chain: list[str] = []
        while name in hierarchy:
            name = hierarchy[name]
            if name in chain:
                raise ParamsError(f"the hierarchy goes in a circle at {name!r}")
            chain.append(name)
        chains.append(chain)
    place = {one: at for at, one in enumerate(dict.fromkeys(one for chain in chains for one in chain))}
    member = np.zeros((len(names), max(1, len(place))))
    for row, chain in enumerate(chains):
        member[row, [place[one] for one in chain]] = 1
    depth = member.sum(1)
    return np.asarray(2 * (member @ member.T) / np.maximum(depth[:, None] + depth[None], 1))


def embedding_similarity(embeddings: Array) -> Array:
    """Cosines (K, K) in [-1, 1] of rows (K, D), such as a head's weights, centred on their mean."""
    centred = np.asarray(embeddings, dtype=np.float64)
    centred = centred - centred.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return np.asarray(np.clip(unit @ unit.T, -1.0, 1.0))


def surprise(mutual: Array, similarities: Sequence[Array]) -> Array:
    """How far each pair is entangled beyond what similarities explain, (K, K) in standard deviations.

    Parameters
    ----------
    mutual
        m, (K, K), symmetric; NaN where there is no value.
    similarities
        Any number of symmetric (K, K).

    Returns
    -------
    Symmetric; NaN on the diagonal and where there is no value; 0 where nothing is left unexplained.
    """
    out = np.full(mutual.shape, np.nan)
    c, k = np.triu_indices(len(mutual), 1)
    known = ~np.isnan(mutual[c, k])
    c, k = c[known], k[known]
    if len(c):
        ranks = [rankdata(one[c, k]) / len(c) for one in (mutual, *similarities)]
        given = np.stack([np.ones(len(c)), *ranks[1:]], 1)
        residual = ranks[0] - given @ np.linalg.lstsq(given, ranks[0], rcond=None)[0]
        # What rounding leaves of a perfect fit is nothing to be surprised at.
        out[c, k] = out[k, c] = residual / max(float(residual.std()), 1e-9)
    return out


def surprising(
    found: Entanglement, similarities: Sequence[Array], *, rate: float = 0.05
) -> list[tuple[int, int, float]]:
    """Pairs that are significantly entangled and surprising, the most surprising first.

    Parameters
    ----------
    found
        Of K classes.
    similarities
        Symmetric (K, K) each.
    rate
        The false-discovery rate that significance is held to.

    Returns
    -------
    Rows, columns and surprises.
    """
    by_pair = surprise(found.mutual, similarities)
    listed = [(int(c), int(k), float(by_pair[c, k])) for c, k in found.significant(rate)]
    return sorted((one for one in listed if one[2] >= _SURPRISING), key=lambda one: -one[2])
