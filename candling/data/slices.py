"""Metadata as slices: which columns divide the pictures into parts worth measuring, and into which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from candling.data.samples import Value, few

__all__ = ["make_slices"]

_MOST_NUMBERS = 10
_ID_WORDS = {"hash", "id", "ids", "idx", "index", "key", "no", "nr", "number", "row", "seed"}


def make_slices(
    columns: Mapping[str, Sequence[Value]], labels: Sequence[str]
) -> tuple[dict[str, list[str | None]], list[str]]:
    """Slices of metadata columns, and a sentence on the columns that became none.

    Numbers of more than ten different values become quartiles, named by the least and the greatest value in
    each, such as "0.1–0.3". No slice becomes a column of one value, one that repeats the label, and one that
    is different for every picture: texts, and whole numbers that look like ids.

    Parameters
    ----------
    columns
        One value a picture, None where it has none.
    labels
        The class of each picture.
    """
    slices: dict[str, list[str | None]] = {}
    reasons: dict[str, list[str]] = {}
    for name, values in columns.items():
        why = _no_slice(name, values, labels)
        if why:
            reasons.setdefault(why, []).append(name)
        elif _quantity(values):
            slices[name] = _quartiles(values)
        else:
            slices[name] = [None if value in (None, "") else str(value) for value in values]
    return slices, [f"No slice became {few(names, 8)}: {why}." for why, names in reasons.items()]


def _no_slice(name: str, values: Sequence[Value], labels: Sequence[str]) -> str:
    """Why a column divides nothing; "" where it does."""
    known = [value for value in values if value not in (None, "")]
    different = set(known)
    if not known:
        return "no picture has a value"
    if len(different) == 1 and len(known) == len(values):
        return "all pictures have the same value"
    if len(different) == len(known) > 1 and not (_quantity(values) and not _looks_like_ids(name, known)):
        return "every picture has a value of its own"
    pairs = set(zip(labels, values, strict=True))
    if len(pairs) == len(set(labels)) == len(set(values)):
        return "it says the same as the label"
    return ""


def _quantity(values: Sequence[Value]) -> bool:
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    return numbers and len(set(known)) > _MOST_NUMBERS


def _looks_like_ids(name: str, values: Sequence[Value]) -> bool:
    if not all(isinstance(value, int) for value in values):
        return False
    whole = [int(value) for value in values if value is not None]
    in_a_row = max(whole) - min(whole) + 1 == len(whole)
    return in_a_row or bool(_ID_WORDS & set(re.split(r"[^a-z]+", name.lower())))


def _quartiles(values: Sequence[Value]) -> list[str | None]:
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    there = np.isfinite(numbers)
    # Where many values are equal, quartiles fall together.
    edges = np.unique(np.quantile(numbers[there], (0.25, 0.5, 0.75)))
    parts = np.searchsorted(edges, numbers, side="left")
    spans = {
        int(part): (numbers[there & (parts == part)].min(), numbers[there & (parts == part)].max())
        for part in np.unique(parts[there])
    }
    names = _names(spans, all(isinstance(value, int) for value in values if value is not None))
    return [names[int(part)] if known else None for part, known in zip(parts, there, strict=True)]


def _names(spans: Mapping[int, tuple[float, float]], whole: bool) -> dict[int, str]:
    """ "least–greatest" of each part, with as many digits as tell the parts' ends apart."""
    ends: NDArray[np.float64] = np.unique(np.array(list(spans.values())))
    texts: dict[float, str] = {}
    for digits in range(3, 18):
        texts = {float(end): f"{end:.0f}" if whole else f"{end:.{digits}g}" for end in ends}
        if len(set(texts.values())) == len(texts):
            break
    return {
        part: texts[float(low)] if low == high else f"{texts[float(low)]}–{texts[float(high)]}"
        for part, (low, high) in spans.items()
    }
