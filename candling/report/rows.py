"""Measurements and rules as rows of tables, subjects side by side, each with the bar of its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from candling.audit.gate import Outcome
from candling.audit.measurements import REGISTRY, MeasurementType
from candling.audit.policy import ANY, Rule
from candling.audit.record import Measurement, Scope
from candling.report.bars import Axis, Bar, bar_of
from candling.report.subjects import Subject
from candling.report.wording import chips

__all__ = ["ROWS_OPEN", "Row", "has", "packed", "rows_of", "rule_rows", "starting", "values_of", "worst_rows"]

# What evidence spread evenly over the picture would give; the registry's `source` says so in words.
_CHANCE = {"object_evidence.over_chance": 1.0, "object_evidence.part_over_area": 1.0}
ROWS_OPEN = 12  # of classes or slices; the others are folded away


@dataclass(frozen=True)
class _RuleCell:
    outcome: Outcome
    bar: Bar | None


@dataclass(frozen=True)
class _RuleRow:
    rule: Rule
    kind: MeasurementType | None
    axis: Axis
    cells: tuple[_RuleCell | None, ...]


@dataclass(frozen=True)
class _Cell:
    measurement: Measurement
    bar: Bar | None


@dataclass(frozen=True)
class Row:
    kind: MeasurementType
    scope: Scope
    axis: Axis
    bounds: tuple[float, ...]
    chance: float | None
    cells: tuple[_Cell | None, ...]


def rule_rows(subjects: Sequence[Subject]) -> list[_RuleRow]:
    """One row for each rule of any subject: policies may differ between subjects."""
    rules: dict[str, Rule] = {}
    cells: dict[tuple[str, int], Outcome] = {}
    for subject in subjects:
        for outcome in subject.verdict.outcomes:
            key = _rule_key(outcome.rule)
            rules.setdefault(key, outcome.rule)
            cells[key, subject.index] = outcome
    return [
        _rule_row(rule, [cells.get((key, subject.index)) for subject in subjects])
        for key, rule in rules.items()
    ]


def _rule_key(rule: Rule) -> str:
    return repr(rule)


def _rule_row(rule: Rule, outcomes: Sequence[Outcome | None]) -> _RuleRow:
    kind = REGISTRY.get(rule.measurement)
    bounds = _rule_bounds(rule)
    seen = [v for o in outcomes if o is not None for v in (o.value, o.low, o.high)]
    # A change has neither the range of what changes nor its chance.
    axis = _axis(None if rule.against else kind, [*seen, *bounds])
    chance = None if rule.against else _CHANCE.get(rule.measurement)
    cells = tuple(
        None if o is None else _RuleCell(o, bar_of(axis, o.value, o.low, o.high, bounds, chance))
        for o in outcomes
    )
    return _RuleRow(rule, kind, axis, cells)


def _rule_bounds(rule: Rule) -> tuple[float, ...]:
    return tuple(b for b in (rule.at_least, rule.at_most) if b is not None)


def rows_of(subjects: Sequence[Subject], wanted: Callable[[Measurement], bool]) -> list[Row]:
    """One row for each id and scope, in the registry's order, subjects side by side."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], dict[int, Measurement]] = {}
    for subject in subjects:
        for measurement in filter(wanted, subject.record.measurements):
            key = (measurement.id, _scope_key(measurement.scope))
            by_subject = found.setdefault(key, {})
            if subject.index in by_subject:
                note = "recorded more than once, the last is shown"
                measurement = measurement.model_copy(update={"note": note})
            by_subject[subject.index] = measurement
    order = {id: position for position, id in enumerate(REGISTRY)}
    keys = sorted(found, key=lambda key: order[key[0]])
    shared = _axes(subjects, found.values())
    return [_row(subjects, found[key], shared[key[0]]) for key in keys]


def _axes(subjects: Sequence[Subject], found: Iterable[dict[int, Measurement]]) -> dict[str, Axis]:
    """One axis for each id, so that rows of the same quantity can be compared by eye."""
    seen: dict[str, list[float | None]] = {}
    for by_subject in found:
        for measurement in by_subject.values():
            values = (measurement.value, measurement.low, measurement.high)
            seen.setdefault(measurement.id, []).extend(values)
    for subject in subjects:
        for rule in subject.record.policy.rules:
            if rule.measurement in seen and rule.against is None:
                seen[rule.measurement].extend(_rule_bounds(rule))
    return {id: _axis(REGISTRY[id], values) for id, values in seen.items()}


def _axis(kind: MeasurementType | None, seen: Iterable[float | None]) -> Axis:
    """The registered range where it is a proportion's, else what holds all that is shown."""
    if kind is not None and (kind.low, kind.high) == (0.0, 1.0):
        return Axis(0.0, 1.0)
    values = [value for value in seen if value is not None]
    chance = _CHANCE.get(kind.id, 0.0) if kind is not None else 0.0
    low, high = min([0.0, *values]), max([chance, *values])
    if high <= low:
        return Axis(low, low + 1.0)
    return Axis(low, high)


def _row(subjects: Sequence[Subject], found: dict[int, Measurement], axis: Axis) -> Row:
    first = next(iter(found.values()))
    chance = _CHANCE.get(first.id)
    bounds = _policy_bounds(subjects, first)
    cells = []
    for subject in subjects:
        m = found.get(subject.index)
        bar = None if m is None else bar_of(axis, m.value, m.low, m.high, bounds, chance)
        cells.append(None if m is None else _Cell(m, bar))
    return Row(REGISTRY[first.id], first.scope, axis, bounds, chance, tuple(cells))


def _policy_bounds(subjects: Sequence[Subject], measurement: Measurement) -> tuple[float, ...]:
    rules = (rule for subject in subjects for rule in subject.record.policy.rules)
    bounds = (
        bound
        for rule in rules
        if rule.measurement == measurement.id
        and rule.against is None
        and _covers(rule.scope, measurement.scope)
        for bound in _rule_bounds(rule)
    )
    return tuple(dict.fromkeys(bounds))


def _covers(wanted: Scope, scope: Scope) -> bool:
    return wanted.keys() == scope.keys() and all(value in (ANY, scope[key]) for key, value in wanted.items())


def _scope_key(scope: Scope) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(scope.items()))


def starting(*prefixes: str) -> Callable[[Measurement], bool]:
    return lambda measurement: measurement.id.startswith(prefixes)


def has(id: str, *keys: str) -> Callable[[Measurement], bool]:
    """Measurements of this id whose scope has these keys, so that they fit where they are drawn."""
    return lambda measurement: measurement.id == id and set(keys) <= set(measurement.scope)


def values_of(row: Row) -> list[float]:
    values = (cell.measurement.value for cell in row.cells if cell is not None)
    return [value for value in values if value is not None]


def worst_rows(subjects: Sequence[Subject], id: str) -> tuple[list[Row], list[Row]]:
    """Rows of a measurement of which higher is better, the worst first; those in view, those folded away."""
    rows = rows_of(subjects, lambda measurement: measurement.id == id)
    rows.sort(key=lambda row: min(values_of(row), default=float("inf")))
    return rows[:ROWS_OPEN], rows[ROWS_OPEN:]


def packed(rows: Sequence[Row], subjects: Sequence[Subject]) -> dict[str, Any]:
    """Rows of a table for the page's script, which draws those that are looked for."""
    kinds = {row.kind.id: row for row in rows}
    places = {id: place for place, id in enumerate(kinds)}
    return {
        "subjects": [subject.name for subject in subjects],
        "kinds": [
            {"title": row.kind.title, "low": row.axis.low, "high": row.axis.high, "chance": row.chance}
            for row in kinds.values()
        ],
        "rows": [
            [places[row.kind.id], chips(row.scope), [_packed_cell(c) for c in row.cells], list(row.bounds)]
            for row in rows
        ],
    }


def _packed_cell(cell: _Cell | None) -> list[Any] | None:
    if cell is None:
        return None
    m = cell.measurement
    return [m.value, m.low, m.high, m.n, m.status, m.note]
