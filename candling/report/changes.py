"""What changed from one record to another, as rows of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from candling.audit.comparison import Change, Comparison, FindingChange
from candling.audit.measurements import REGISTRY, MeasurementType
from candling.report.bars import Axis, Bar, bar_of

__all__ = ["ChangeRow", "Changes", "changes"]

_LISTED = 200  # of measurements, those that changed the most surely
_ORDER = ("new", "worse", "untested", "unclear", "gone", "better", "fixed", "unchanged")


@dataclass(frozen=True)
class ChangeRow:
    """A measurement that changed by more than chance, and the bar of its difference."""

    kind: MeasurementType
    change: Change
    bar: Bar | None


@dataclass(frozen=True)
class Changes:
    """Of a comparison: findings, what needs a look first; measurements, the surest first.

    more: that changed and are not listed. gone: that only the old side has. added: how many only the new side
    has. unchanged: how many stayed, or could not be compared.
    """

    summary: str
    differing: tuple[str, ...]
    findings: tuple[FindingChange, ...]
    rows: tuple[ChangeRow, ...]
    more: int
    gone: tuple[Change, ...]
    added: int
    unchanged: int


def changes(found: Comparison) -> Changes:
    """The rows of a comparison."""
    surest = sorted(found.significant, key=lambda one: (one.p if one.p is not None else 1.0, one.id))
    shown = surest[:_LISTED]
    gone = tuple(one for one in found.changes if one.status == "gone")
    added = sum(one.status == "new" for one in found.changes)
    return Changes(
        summary=found.summary,
        differing=found.differing,
        findings=tuple(sorted(found.findings, key=lambda one: (_ORDER.index(one.status), one.id))),
        rows=tuple(ChangeRow(REGISTRY[one.id], one, _bar(one, shown)) for one in shown),
        more=len(surest) - len(shown),
        gone=gone,
        added=added,
        unchanged=len(found.changes) - len(surest) - len(gone) - added,
    )


def _bar(change: Change, shown: Sequence[Change]) -> Bar | None:
    """On an axis that all changes of the same quantity share, zero in its middle."""
    gaps = [one.difference for one in shown if one.id == change.id and one.difference is not None]
    if change.difference is None or not gaps:
        return None
    end = max(1e-9, *(abs(value) for gap in gaps for value in (gap.value, gap.low, gap.high)))
    gap = change.difference
    return bar_of(Axis(-end, end), gap.value, gap.low, gap.high)
