"""What the interactive heat map of entanglement is drawn from: every class by every class, in few bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candling.audit.record import AuditRecord, Measurement
from candling.report.artifacts import NotThere, read_rows

__all__ = ["LEAST", "heat_map", "is_pair", "names_of"]

LEAST = 3  # classes; of two there is one pair, which needs no map
_STEPS = 127  # of colour on each side of zero
_UNKNOWN = -128

Named = tuple[str, AuditRecord, Path]
Matrix = NDArray[np.float64]


def is_pair(measurement: Measurement) -> bool:
    """Whether it is e(c→k) of one pair of classes."""
    return measurement.id == "entanglement.directed" and {"from", "to"} <= set(measurement.scope)


def names_of(classes: Sequence[str], used: Iterable[str]) -> tuple[str, ...]:
    """The names that are used, in the model's order where it is known."""
    found, known = dict.fromkeys(used), set(classes)
    return (*(c for c in dict.fromkeys(classes) if c in found), *(c for c in found if c not in known))


def heat_map(subjects: Sequence[Named]) -> dict[str, Any] | None:
    """The map of several subjects over one list of classes, for the page's script.

    Parameters
    ----------
    subjects
        Name, record and the record's folder of each.

    Returns
    -------
    dict or None
        ``classes``: K names. ``alike``: their places in an order in which classes that excite the same ones
        are neighbours. ``full``: the value of the strongest colour. ``subjects``: of each its ``name``; its
        ``steps``, K · K signed bytes in base64, row by row, in 127ths of ``full`` and -128 where nothing is
        known; its ``exact`` pairs ``[from, to, value, low, high, n, note, status]``; and a ``problem`` with
        the table of its matrix. None where no subject has pairs of at least three classes.
    """
    found = [(name, record, *_values(record, folder)) for name, record, folder in subjects]
    names = names_of(
        next((record.classes for _, record, *_ in found if record.classes), ()),
        (name for _, _, known, _, _ in found for name in known),
    )
    if len(names) < LEAST:
        return None
    place = {name: index for index, name in enumerate(names)}
    matrices = [_spread(known, values, place) for _, _, known, values, _ in found]
    full = max([1.0, *(float(np.nanmax(np.abs(m))) for m in matrices if not np.isnan(m).all())])
    told = [
        {"name": name, "steps": _steps(matrix, full), "exact": _exact(record, place), "problem": problem}
        for (name, record, _, _, problem), matrix in zip(found, matrices, strict=True)
        if not np.isnan(matrix).all()
    ]
    if not told:
        return None
    return {"classes": list(names), "alike": _alike(matrices), "full": full, "subjects": told}


def _values(record: AuditRecord, folder: Path) -> tuple[tuple[str, ...], Matrix, str]:
    """Class names with their matrix, and what is wrong with it.

    It is that of the table beside the record, else of the pairs that the record holds.
    """
    problem = ""
    for artifact in record.artifacts:
        if artifact.section == "entanglement" and artifact.scope.get("view") == "matrix":
            try:
                rows = read_rows(artifact, folder)
                values = rows.drop(columns="class").to_numpy(np.float64)
                names = tuple(map(str, rows["class"]))
            except (NotThere, KeyError, ValueError, TypeError) as error:
                problem = str(error) if isinstance(error, NotThere) else "not a matrix"
                break  # the pairs of the record are less, and true
            if values.shape == (len(names), len(names)) and len(set(names)) == len(names):
                return names, np.where(np.isfinite(values), values, np.nan), ""
            problem = "not a matrix of as many classes as it names"
    pairs = [m for m in record.measurements if is_pair(m)]
    names = names_of(record.classes, (m.scope[end] for end in ("from", "to") for m in pairs))
    place = {name: index for index, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    for m in pairs:
        if m.value is not None:
            matrix[place[m.scope["from"]], place[m.scope["to"]]] = m.value
    if problem:
        problem = f"{problem}; shown are the pairs that the record holds"
    return names, matrix, problem


def _spread(names: Sequence[str], values: Matrix, place: dict[str, int]) -> Matrix:
    """The matrix over all classes of the page."""
    matrix = np.full((len(place), len(place)), np.nan)
    at = [place[name] for name in names]
    matrix[np.ix_(at, at)] = values
    return matrix


def _steps(matrix: Matrix, full: float) -> str:
    steps = np.where(np.isnan(matrix), _UNKNOWN, np.rint(np.nan_to_num(matrix) / full * _STEPS))
    return base64.b64encode(steps.astype(np.int8).tobytes()).decode("ascii")


def _exact(record: AuditRecord, place: dict[str, int]) -> list[list[Any]]:
    return [
        [place[m.scope["from"]], place[m.scope["to"]], m.value, m.low, m.high, m.n, m.note, m.status]
        for m in record.measurements
        if is_pair(m) and m.value is not None
    ]


def _alike(matrices: Sequence[Matrix]) -> list[int]:
    """An order in which classes that excite the same classes are neighbours (average linkage)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    known = np.stack([np.nan_to_num(matrix) for matrix in matrices if not np.isnan(matrix).all()])
    mean = known.mean(0)
    closeness = (mean + mean.T) / 2
    np.fill_diagonal(closeness, 0.0)
    distance = closeness.max() - closeness
    np.fill_diagonal(distance, 0.0)
    order = leaves_list(linkage(squareform(distance, checks=False), "average"))
    return [int(place) for place in order]
