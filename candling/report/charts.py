"""Heat maps of a few classes, reliability diagrams, and the strongest pairs of many classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from candling.audit.record import Measurement
from candling.report.bars import Axis
from candling.report.heatmaps import is_pair, names_of
from candling.report.rows import Row, has, rows_of, values_of
from candling.report.subjects import Subject
from candling.report.wording import spaced

__all__ = [
    "confusions",
    "corruption_tables",
    "entanglement_tables",
    "is_bin_accuracy",
    "is_bin_confidence",
    "is_corrupted",
    "is_entangled",
    "is_headline",
    "reliability_diagrams",
    "severities_of",
    "strongest_pairs",
]

_MATRIX_LIMIT = 24  # a larger heat map cannot be read; the strongest pairs can
_CONFUSION_LIMIT = 20
_DENSE = 5  # with more columns than this the names above them are turned
_PAIRS_LISTED = 40
_CONFUSIONS_LISTED = 10


@dataclass(frozen=True)
class _HeatCell:
    measurement: Measurement
    sign: str
    strength: int


@dataclass(frozen=True)
class _Matrix:
    subject: Subject
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[_HeatCell | None, ...]], ...]
    dense: bool = False
    clean: Measurement | None = None

    @property
    def _unsure(self) -> list[bool]:
        return [cell.measurement.status != "ok" for _, row in self.rows for cell in row if cell is not None]

    @property
    def none_sure(self) -> bool:
        """Whether every cell tells too little: said once, not in each."""
        return all(self._unsure)

    @property
    def some_unsure(self) -> bool:
        return any(self._unsure) and not self.none_sure


@dataclass(frozen=True)
class _Dot:
    """A bin of a reliability diagram, in percent of its sides; y counts from the top."""

    x: float
    y: float
    low: float | None
    high: float | None
    name: str
    accuracy: Measurement
    confidence: Measurement


_is_confusion = has("confusion.rate", "from", "to")


is_corrupted = has("robustness.accuracy", "corruption", "severity")


is_bin_accuracy = has("calibration.bin_accuracy", "bin")


is_bin_confidence = has("calibration.bin_confidence", "bin")


def is_headline(measurement: Measurement) -> bool:
    """What the section on accuracy says first: all of it that has no table of its own."""
    if measurement.id in ("accuracy.group", "accuracy.worst_group", "accuracy.class", "accuracy.slice"):
        return False
    drawn = (_is_confusion, is_bin_accuracy, is_bin_confidence)
    wanted = measurement.id.startswith(("accuracy.", "calibration.", "confusion."))
    return wanted and not any(is_drawn(measurement) for is_drawn in drawn)


def confusions(subjects: Sequence[Subject]) -> tuple[list[_Matrix], list[Row], int]:
    """A heat map for each subject that has few enough classes, and the strongest pairs."""
    matrices = []
    for subject in subjects:
        found = list(filter(_is_confusion, subject.record.measurements))
        rows = names_of(subject.record.classes, [m.scope["from"] for m in found])
        columns = _columns(subject.record.classes, found)
        if found and len(rows) <= _CONFUSION_LIMIT:
            matrices.append(_matrix(subject, rows, columns, found, 1.0))
    pairs = rows_of(subjects, lambda m: _is_confusion(m) and m.scope["from"] != m.scope["to"])
    pairs = [row for row in pairs if any(values_of(row))]
    pairs.sort(key=lambda row: max(values_of(row)), reverse=True)
    return matrices, pairs[:_CONFUSIONS_LISTED], len(pairs)


def _columns(classes: Sequence[str], found: Sequence[Measurement]) -> tuple[str, ...]:
    """What pictures are predicted as: no column for another class where nothing was taken for one.

    The record names the audited classes, not whether the model knows more. It is left out only where
    the others account for all of every row, so that nothing is missing from the table.
    """
    columns = names_of(classes, [m.scope["to"] for m in found])
    audited, rows = set(classes), dict.fromkeys((m.scope["from"] for m in found), 0.0)
    for m in found:
        if m.scope["to"] in audited:
            rows[m.scope["from"]] += m.value or 0.0
        elif m.value != 0.0:
            return columns
    # A value carries eight digits.
    if all(math.isclose(share, 1.0, abs_tol=1e-6) for share in rows.values()):
        return tuple(name for name in columns if name in audited)
    return columns


def reliability_diagrams(subjects: Sequence[Subject]) -> list[tuple[Subject, list[_Dot]]]:
    """Accuracy against confidence, a dot a bin."""
    diagrams = []
    for subject in subjects:
        found = subject.record.measurements
        confidence = {m.scope["bin"]: m for m in found if is_bin_confidence(m)}
        dots = [
            _dot(m, confidence[m.scope["bin"]])
            for m in found
            if is_bin_accuracy(m) and m.value is not None and m.scope["bin"] in confidence
            if confidence[m.scope["bin"]].value is not None
        ]
        if dots:
            diagrams.append((subject, dots))
    return diagrams


def _dot(accuracy: Measurement, confidence: Measurement) -> _Dot:
    side = Axis(0.0, 1.0)

    def up(value: float | None) -> float | None:
        return None if value is None else round(100 - side.x(value), 2)

    return _Dot(
        x=side.x(confidence.value or 0.0),
        y=up(accuracy.value) or 0.0,
        low=up(accuracy.low),
        high=up(accuracy.high),
        name=accuracy.scope["bin"],
        accuracy=accuracy,
        confidence=confidence,
    )


def corruption_tables(subjects: Sequence[Subject]) -> list[_Matrix]:
    """Corruption against severity; the colour is what is missing to an accuracy of 1."""
    grids = []
    for subject in subjects:
        found = list(filter(is_corrupted, subject.record.measurements))
        clean = next((m for m in found if m.scope["severity"] == "0"), None)
        cells = {
            (m.scope["corruption"], m.scope["severity"]): _HeatCell(
                m, "high", 0 if m.value is None else round(100 * (1 - m.value))
            )
            for m in found
            if m is not clean
        }
        names = tuple(dict.fromkeys(name for name, _ in cells))
        severities = severities_of(severity for _, severity in cells)
        rows = tuple((spaced(name), tuple(cells.get((name, s)) for s in severities)) for name in names)
        if rows:
            grids.append(_Matrix(subject, severities, rows, False, clean))
    return grids


def severities_of(found: Iterable[str]) -> tuple[str, ...]:
    """Each severity once, the mildest first."""
    return tuple(sorted(set(found), key=lambda severity: (len(severity), severity)))


def entanglement_tables(subjects: Sequence[Subject]) -> list[_Matrix]:
    """One heat map a subject, all on one colour scale; none where it could not be read."""
    pairs = {s.index: list(filter(is_pair, s.record.measurements)) for s in subjects}
    values = [abs(m.value) for found in pairs.values() for m in found if m.value is not None]
    full = max([1.0, *values])  # a class excites itself by 1: the natural full strength
    matrices = []
    for subject in subjects:
        found = pairs[subject.index]
        names = names_of(subject.record.classes, [m.scope[end] for end in ("from", "to") for m in found])
        if found and len(names) <= _MATRIX_LIMIT:
            matrices.append(_matrix(subject, names, names, found, full))
    return matrices


def _matrix(
    subject: Subject,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    pairs: Sequence[Measurement],
    full: float,
) -> _Matrix:
    cells = {(m.scope["from"], m.scope["to"]): _heat(m, full) for m in pairs}
    table = tuple((row, tuple(cells.get((row, column)) for column in columns)) for row in rows)
    return _Matrix(subject, columns, table, len(columns) > _DENSE)


def _heat(measurement: Measurement, full: float) -> _HeatCell:
    value, scope = measurement.value or 0.0, measurement.scope
    own = measurement.id == "confusion.rate" and scope["from"] == scope["to"]
    sign = "own" if own else "low" if value < 0 else "high"
    return _HeatCell(measurement, sign, round(100 * abs(value) / full))


def is_entangled(measurement: Measurement) -> bool:
    """All of entanglement that is not of one pair among many."""
    of_a_pair = measurement.id == "entanglement.symmetric" or is_pair(measurement)
    return measurement.id.startswith("entanglement.") and not of_a_pair


def strongest_pairs(
    subjects: Sequence[Subject], wanted: Callable[[Measurement], bool]
) -> tuple[list[Row], int]:
    """The strongest pairs, and how many there are."""
    rows = rows_of(subjects, wanted)
    rows.sort(key=lambda row: max(values_of(row), default=float("-inf")), reverse=True)
    return rows[:_PAIRS_LISTED], len(rows)
