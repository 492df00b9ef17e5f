"""Two records of one model, or of two: what changed between them, and whether that is more than chance.

The interval of a difference comes from the intervals of both measurements, each side from the sides that
face each other (MOVER; Zou and Donner, "Construction of confidence limits about effect measures", Statistics
in Medicine 27, 2008, section 2; for proportions it is Newcombe's method 10, Statistics in Medicine 17, 1998).
Both records look at the same eval set, so that it is rather too wide. Its p-value is that of a t test with
the variances that the facing sides imply and as many degrees of freedom as both samples give (Welch 1947);
those of all measurements together are corrected by Holm's method, so that among all that did not change one
is called changed in one comparison of twenty.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from candling.audit.measurements import direction
from candling.audit.record import AuditRecord, Finding, Measurement, Scope
from candling.errors import DataError

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "FindingChange",
    "check_comparable",
    "compare",
    "difference",
    "differing",
]

ChangeStatus = Literal["better", "worse", "changed", "unchanged", "new", "gone", "unknown"]
FindingStatus = Literal["new", "fixed", "worse", "better", "unchanged", "unclear", "gone", "untested"]

_Z95 = 1.959963984540054
_WRONG = 0.05  # of comparisons in which nothing changed, that call anything changed
_TRAINING = ("data.retrain.", "data.repair.")  # splits that a new model may well differ in, and `data.train`


@dataclass(frozen=True)
class Difference:
    """New less old, its 95% interval and the p-value of no difference, before any correction."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Change:
    """What became of one measurement.

    p: after correction for all that were compared; None where one side has no interval. status: better, worse
    or (where neither direction is) changed, if the change is significant; new and gone are measured only
    once, unknown has no interval, or was not measured well enough.
    """

    id: str
    scope: Scope
    old: Measurement | None
    new: Measurement | None
    difference: Difference | None
    p: float | None
    status: ChangeStatus


@dataclass(frozen=True)
class FindingChange:
    """What became of one finding.

    fixed: it was confirmed and is dismissed now, by an effect that is clearly smaller; unclear: it is
    dismissed, and both effects may be the same, or were not tested alike; untested: it is there and was not
    tested; gone: it was not even suspected.
    """

    id: str
    old: Finding | None
    new: Finding | None
    status: FindingStatus

    @property
    def finding(self) -> Finding:
        """The newer of both."""
        found = self.new or self.old
        assert found is not None, "a change has one side at least"
        return found


@dataclass(frozen=True)
class Comparison:
    """All that changed between two records. differing: what they do not share, in words."""

    old: AuditRecord
    new: AuditRecord
    changes: tuple[Change, ...]
    findings: tuple[FindingChange, ...]
    differing: tuple[str, ...]

    @property
    def significant(self) -> tuple[Change, ...]:
        """The measurements that changed by more than chance."""
        return tuple(change for change in self.changes if change.status in ("better", "worse", "changed"))

    @property
    def summary(self) -> str:
        """Both records and what changed, in a sentence."""
        counts = [
            f"{sum(one.status == status for one in self.findings)} {status}"
            for status in ("new", "fixed", "worse", "better")
        ]
        moved = [
            f"{number} {status}"
            for status in ("better", "worse", "changed")
            if (number := sum(one.status == status for one in self.significant))
        ]
        names = [f"{one.audit}/{one.subject}" for one in (self.old, self.new)]
        return (
            f"{names[0]} → {names[1]}: findings {', '.join(counts)}; "
            f"measurements {', '.join(moved) or 'none significantly changed'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""

        def side(record: AuditRecord) -> dict[str, Any]:
            return {"audit": record.audit, "subject": record.subject, "digests": record.digests}

        return {
            "old": side(self.old),
            "new": side(self.new),
            "differing": list(self.differing),
            "summary": self.summary,
            "findings": [
                {
                    "id": one.id, "status": one.status, "kind": one.finding.kind, "scope": one.finding.scope,
                    "old": None if one.old is None else one.old.status,
                    "new": None if one.new is None else one.new.status,
                    "statement": one.finding.statement,
                }
                for one in self.findings
            ],
            "measurements": [
                {
                    "id": one.id, "scope": one.scope, "status": one.status, "p": one.p,
                    "old": None if one.old is None else one.old.value,
                    "new": None if one.new is None else one.new.value,
                    "difference": None if one.difference is None else one.difference.value,
                    "low": None if one.difference is None else one.difference.low,
                    "high": None if one.difference is None else one.difference.high,
                }
                for one in self.changes
            ],
        }  # fmt: skip


def difference(old: Measurement, new: Measurement) -> Difference | None:
    """New less old, with its interval; None where a value or the end of an interval is missing.

    Where neither has a spread, as counts do not, or a sample is of one, the p-value is NaN: nothing says what
    chance would have made of it.
    """
    numbers = (old.value, old.low, old.high, new.value, new.low, new.high)
    if old.status != "ok" or new.status != "ok" or not all(_finite(number) for number in numbers):
        return None
    was, was_low, was_high, now, now_low, now_high = (float(number or 0.0) for number in numbers)
    value = now - was
    old_sides, new_sides = _sides(was, was_low, was_high), _sides(now, now_low, now_high)
    below, above = (old_sides[1], new_sides[0]), (old_sides[0], new_sides[1])
    p = _chance(value, below if value > 0 else above, (old.n, new.n))
    return Difference(value, value - math.hypot(*below), value + math.hypot(*above), p)


def _sides(value: float, low: float, high: float) -> tuple[float, float]:
    """How far an interval reaches below and above its value; all of it where it misses that, as some do."""
    if low <= value <= high:
        return value - low, high - value
    return (max(value, high) - min(value, low),) * 2


def _chance(value: float, sides: tuple[float, float], sizes: tuple[int | None, int | None]) -> float:
    """The p-value of a difference, by the sides of both intervals that face each other."""
    from scipy.special import stdtr

    if not value:
        return 1.0
    free = [math.inf if n is None else n - 1 for n in sizes]
    if not any(sides) or min(free) < 1:
        return math.nan
    # A side is that of a bootstrap or of Wilson's: so many standard errors of the sample's own spread, which
    # is smaller than that of what it was drawn from by n - 1 to n.
    variances = [(side / _Z95) ** 2 * (1 + 1 / df) for side, df in zip(sides, free, strict=True)]
    total = sum(variances)
    if not total:
        return 0.0
    shares = sum(v**2 / df for v, df in zip(variances, free, strict=True))
    together = min(total**2 / shares, 1e9) if shares else 1e9
    return 2 * float(stdtr(together, -abs(value) / math.sqrt(total)))


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def differing(old: AuditRecord, new: AuditRecord) -> list[str]:
    """What keeps two records from being compared: kind, classes and eval data, in words."""
    found = []
    if old.kind != new.kind:
        found.append(f"one is of {old.kind}, the other of {new.kind}")
    if old.classes != new.classes:
        fewer, more = sorted(set(old.classes) - set(new.classes)), sorted(set(new.classes) - set(old.classes))
        parts = [
            f"{len(names)} only in the {which} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for which, names in (("old", fewer), ("new", more))
            if names
        ]
        found.append(f"classes: {', '.join(parts) or 'in another order'}")
    for which, record in (("old", old), ("new", new)):
        if not _eval_data(record):
            found.append(f"the {which} record does not say what data it looked at")
    for key in sorted(_eval_data(old).keys() | _eval_data(new).keys()):
        digests = [_eval_data(one).get(key) for one in (old, new)]
        if digests[0] != digests[1]:
            name = key.removeprefix("data.")
            shown = " and ".join("none" if digest is None else digest[:12] for digest in digests)
            found.append(f"data of {name}: {shown}")
    return found


def _eval_data(record: AuditRecord) -> dict[str, str]:
    return {
        key: digest
        for key, digest in record.digests.items()
        if key.startswith("data.") and key != "data.train" and not key.startswith(_TRAINING)
    }


def check_comparable(old: AuditRecord, new: AuditRecord) -> None:
    """See that two records are of the same kind, classes and eval data.

    Raises
    ------
    DataError
        Naming what differs.
    """
    if found := differing(old, new):
        names = " and ".join(f"{one.audit}/{one.subject}" for one in (old, new))
        raise DataError(
            f"{names} cannot be compared, {'; '.join(found)}; audit both on the same data, "
            "or say --force to `candling diff`"
        )


def compare(old: AuditRecord, new: AuditRecord, *, force: bool = False) -> Comparison:
    """All that changed from one record to another.

    Parameters
    ----------
    force
        Compare also where kind, classes or eval data differ, which is told.

    Raises
    ------
    DataError
        If they differ and `force` was not said.
    """
    if not force:
        check_comparable(old, new)
    return Comparison(
        old, new, tuple(_changes(old, new)), tuple(_findings(old, new)), tuple(differing(old, new))
    )


def _by_scope(record: AuditRecord) -> dict[tuple[str, tuple[tuple[str, str], ...]], Measurement]:
    """Measurements by what they are of; of one that was recorded twice nothing is known."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Measurement] = {}
    for m in record.measurements:
        key = (m.id, tuple(sorted(m.scope.items())))
        unknown = {"value": None, "low": None, "high": None, "status": "error", "note": "recorded twice"}
        found[key] = m.model_copy(update=unknown) if key in found else m
    return found


def _changes(old: AuditRecord, new: AuditRecord) -> Iterator[Change]:
    before, after = _by_scope(old), _by_scope(new)
    keys = sorted(before.keys() | after.keys())
    found = {key: difference(before[key], after[key]) for key in keys if key in before and key in after}
    told = {key: one for key, one in found.items() if one is not None and not math.isnan(one.p)}
    corrected = dict(zip(told, holm([one.p for one in told.values()]), strict=True))
    for key in keys:
        was, now, gap, p = before.get(key), after.get(key), found.get(key), corrected.get(key)
        yield Change(key[0], dict(key[1]), was, now, gap, p, _status(key[0], was, now, gap, p))


def _status(
    id: str, old: Measurement | None, new: Measurement | None, gap: Difference | None, p: float | None
) -> ChangeStatus:
    if old is None or new is None:
        return "new" if old is None else "gone"
    if gap is None or p is None:
        return "unknown"
    if p > _WRONG or not gap.value:
        return "unchanged"
    better = direction(id, new.scope)
    if better == "neither":
        return "changed"
    return "better" if (gap.value > 0) == (better == "higher") else "worse"


def holm(p: Sequence[float]) -> list[float]:
    """P-values after Holm's correction ("A simple sequentially rejective multiple test procedure", 1979)."""
    order = sorted(range(len(p)), key=p.__getitem__)
    out, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, p[place] * (len(p) - rank)))
        out[place] = least
    return out


def _effect(finding: Finding) -> tuple[float, float] | None:
    """The least and the most that a finding's effect may be in size: of its test, or of its one evidence."""
    ends = (finding.test or {}).get("interval")
    if not isinstance(ends, list | tuple) and len(finding.evidence) == 1:
        ends = (finding.evidence[0].low, finding.evidence[0].high)
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return None
    if not all(isinstance(end, int | float) for end in ends):
        return None
    low, high = float(ends[0]), float(ends[1])
    most = max(abs(low), abs(high))
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), most


def _findings(old: AuditRecord, new: AuditRecord) -> Iterator[FindingChange]:
    before, after = ({one.id: one for one in record.findings} for record in (old, new))
    order: dict[str, None] = dict.fromkeys([*after, *before])
    for id in order:
        was, now = before.get(id), after.get(id)
        yield FindingChange(id, was, now, _finding_status(was, now))


def _finding_status(old: Finding | None, new: Finding | None) -> FindingStatus:
    was, now = old is not None and old.status == "confirmed", new is not None and new.status == "confirmed"
    if now and not was:
        return "new"
    if was and not now:
        if new is None:
            return "gone"
        if new.status != "dismissed" or old is None:
            return "untested"
        return "fixed" if _alike(old, new) and _clearly_less(old, new) else "unclear"
    if not was or old is None or new is None:
        return "unchanged"
    if not _alike(old, new):
        return "unchanged"
    if _clearly_less(new, old):
        return "worse"
    return "better" if _clearly_less(old, new) else "unchanged"


def _alike(old: Finding, new: Finding) -> bool:
    """Whether the same was measured of both: a region beside others that stay is another measurement."""
    return [m.scope for m in old.evidence if "beside" in m.scope] == [
        m.scope for m in new.evidence if "beside" in m.scope
    ]


def _clearly_less(old: Finding, new: Finding) -> bool:
    """Whether the new effect is smaller for sure: the intervals of both sizes lie apart."""
    was, now = _effect(old), _effect(new)
    return was is not None and now is not None and now[1] < was[0]
