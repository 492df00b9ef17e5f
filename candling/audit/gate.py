"""The gate: a record held to a policy. Pure, and it fails closed: what is not known never passes.

An error outranks everything, as a record with errors is not whole; then a measurement that is missing;
then a bound that a measurement definitely breaks; then a measurement that is too weak to tell. A waiver
lifts what is broken or too weak, for the days that it holds, and never what is missing or errored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

from candling.audit.comparison import check_comparable, difference
from candling.audit.policy import ANY, Policy, Rule, Waiver, today
from candling.audit.record import AuditRecord, Measurement

__all__ = ["EXIT_CODES", "Outcome", "Verdict", "WaiverUse", "judge"]

Status = Literal["passed", "blocked", "incomplete", "nothing"]
OutcomeStatus = Literal["passed", "failed", "inconclusive", "missing", "error", "warned", "waived"]

EXIT_CODES: dict[Status, int] = {"passed": 0, "blocked": 1, "incomplete": 2, "nothing": 3}


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    `warned` is a rule of severity ``warn`` that failed or could not be judged, `waived` one that failed or
    was too weak to judge and that somebody answers for; `judged` tells whether it was judged. `number` is the
    place of the rule in the policy.
    """

    rule: Rule
    measurement: Measurement | None
    status: OutcomeStatus
    judged: bool
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    threshold: str
    message: str
    waiver: Waiver | None = None
    number: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "rule": self.rule.model_dump(mode="json"),
            "status": self.status,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "threshold": self.threshold,
            "message": self.message,
            "waiver": None if self.waiver is None else self.waiver.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class WaiverUse:
    """What became of a waiver: active, unused, or void, because it expired or holds for too long."""

    waiver: Waiver
    status: Literal["active", "unused", "void"]
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.waiver.model_dump(mode="json"), "status": self.status, "message": self.message}


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one record.

    waivers: each of the policy's, with what became of it. baseline: audit, subject and model digest of the
    record that changes were taken from; None without one.
    """

    audit: str
    subject: str
    status: Status
    outcomes: tuple[Outcome, ...]
    summary: str
    waivers: tuple[WaiverUse, ...] = ()
    baseline: tuple[str, str, str] | None = None

    @property
    def exit_code(self) -> int:
        """0 passed, 1 blocked, 2 incomplete or errored, 3 nothing was audited."""
        return EXIT_CODES[self.status]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = ("audit", "subject", "model")
        return {
            "audit": self.audit,
            "subject": self.subject,
            "status": self.status,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
            "waivers": [use.to_dict() for use in self.waivers],
            "baseline": None if self.baseline is None else dict(zip(names, self.baseline, strict=True)),
        }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _is_nan(number: float | None) -> bool:
    return number is not None and not math.isfinite(number)


def _weakness(rule: Rule, found: Measurement, min_n: int) -> str | None:
    """Why `found` is too weak to judge `rule` by, or None."""
    note = f": {found.note}" if found.note else ""
    if found.status != "ok":
        return f"was measured as inconclusive{note}"
    if found.value is None:
        return f"has no value{note}"
    if found.n is None:
        return f"does not say what n it rests on; at least {min_n} are needed"
    if found.n < min_n:
        return f"rests on n = {found.n}; at least {min_n} are needed"
    if rule.on == "interval":
        ends = ((rule.at_least, found.low), (rule.at_most, found.high))
        if any(bound is not None and end is None for bound, end in ends):
            return "has no interval, and the rule holds its conservative end to the threshold"
        if found.low is not None and found.high is not None and found.low > found.high:
            return f"has an interval upside down, {found.low:.4g} to {found.high:.4g}"
    return None


def _breaks(rule: Rule, value: float, low: float | None, high: float | None) -> list[str]:
    """The bounds that are broken, in words; empty when the rule holds."""
    broken = []
    # A bootstrap interval can miss its own estimate: the worse of the two decides.
    least = value if low is None or rule.on == "estimate" else min(value, low)
    most = value if high is None or rule.on == "estimate" else max(value, high)
    if rule.at_least is not None and least < rule.at_least:
        said = f", its low end {least:.4g}" if value >= rule.at_least else ""
        broken.append(f"is {value:.4g}{said}; at least {rule.at_least:g} is required")
    if rule.at_most is not None and most > rule.at_most:
        said = f", its high end {most:.4g}" if value <= rule.at_most else ""
        broken.append(f"is {value:.4g}{said}; at most {rule.at_most:g} is allowed")
    return broken


def _unusable(matches: Sequence[Measurement], where: str = "") -> tuple[OutcomeStatus, str] | None:
    """Why there is not one measurement that could be looked at; None where there is."""
    if not matches:
        return "missing", f"was not measured{where}"
    if len(matches) > 1:
        # Which of them is true is unknown, and one of them may have failed.
        return "error", f"was recorded {len(matches)} times{where}"
    found = matches[0]
    if found.status == "error":
        return "error", f"could not be measured{where}: {found.note or 'its step failed'}"
    if any(_is_nan(number) for number in (found.value, found.low, found.high)):
        return "error", f"is not a finite number{where}"
    return None


def _assess(rule: Rule, found: Measurement, min_n: int) -> tuple[OutcomeStatus, str]:
    """Status and reason by a measurement that can be looked at, severity aside."""
    weakness = _weakness(rule, found, rule.min_n or min_n)
    if weakness is not None or found.value is None:
        return "inconclusive", weakness or "has no value"
    broken = _breaks(rule, found.value, found.low, found.high)
    if broken:
        return "failed", " and ".join(broken)
    return "passed", f"is {found.value:.4g}, {rule.threshold} as required"


def _changed(
    rule: Rule, found: Measurement, baseline: AuditRecord | None, first: bool, min_n: int
) -> tuple[OutcomeStatus, str, Measurement | None]:
    """Status, reason and the change itself, of a rule on the change since a baseline."""
    if baseline is None:
        if first:
            return "warned", "has no baseline: this is said to be the first audit", None
        return (
            "missing",
            "has no baseline; name one with --baseline, or say --first if there is none",
            None,
        )
    before = _matching(rule, baseline)
    if trouble := _unusable(before, " in the baseline"):
        return *trouble, None
    for one, where in ((before[0], "in the baseline "), (found, "")):
        weakness = _weakness(rule, one, rule.min_n or min_n)
        if weakness is not None:
            return "inconclusive", f"{where}{weakness}", None
    change = difference(before[0], found)
    if change is None:
        return "inconclusive", "has no interval", None
    # A change of a proportion is no proportion: the registry's range is not its range.
    made = found.model_copy(update={"value": change.value, "low": change.low, "high": change.high})
    return *_assess(rule, made, min_n), made


def _matching(rule: Rule, record: AuditRecord) -> list[Measurement]:
    return [m for m in record.measurements if m.id == rule.measurement and m.scope == rule.scope]


def _each(rule: Rule, record: AuditRecord, baseline: AuditRecord | None) -> Iterator[Rule]:
    """The rule, or where its scope holds ``*`` one for each that is measured, and for each class at least.

    What a baseline measured is asked for, too, by a rule on changes.
    """
    free = [key for key, value in rule.scope.items() if value == ANY]
    if not free:
        yield rule
        return
    known = [record, *([baseline] if baseline is not None and rule.against else [])]
    scopes = [
        m.scope
        for one in known
        for m in one.measurements
        if m.id == rule.measurement
        and m.scope.keys() == rule.scope.keys()
        and all(key in free or m.scope[key] == value for key, value in rule.scope.items())
    ]
    if "class" in free:
        # Each class is held to what any of them is; where nothing is known of the rest, it is missing.
        shapes = scopes or [rule.scope]
        scopes = scopes + [{**scope, "class": name} for scope in shapes for name in record.classes]
    unlike = {tuple(sorted(scope.items())): scope for scope in scopes}
    for scope in unlike.values() or [rule.scope]:
        yield rule.model_copy(update={"scope": scope})


def _outcome(
    number: int,
    rule: Rule,
    record: AuditRecord,
    min_n: int,
    waivers: Sequence[Waiver],
    day: date,
    baseline: AuditRecord | None,
    first: bool,
) -> Outcome:
    matches = _matching(rule, record)
    found = matches[0] if len(matches) == 1 else None
    if trouble := _unusable(matches):
        status, reason = trouble
    elif rule.against is None:
        status, reason = _assess(rule, matches[0], min_n)
    else:
        status, reason, found = _changed(rule, matches[0], baseline, first, min_n)
    judged = status in ("passed", "failed")
    waiver = next((one for one in waivers if one.covers(rule)), None)
    if waiver is not None and status in ("failed", "inconclusive"):
        if (void := waiver.trouble(day)) is None:
            status = "waived"
            reason += f"; waived until {waiver.expires} by {waiver.owner}: {waiver.reason}"
        else:
            reason += f"; its waiver by {waiver.owner} {void}"
    # A crashed step is never only a warning: what else it would have found is unknown.
    if rule.severity == "warn" and status in ("failed", "missing", "inconclusive"):
        status = "warned"
    return Outcome(
        rule=rule,
        measurement=found,
        status=status,
        judged=judged,
        value=_finite(found.value) if found else None,
        low=_finite(found.low) if found else None,
        high=_finite(found.high) if found else None,
        n=found.n if found else None,
        threshold=rule.threshold,
        message=f"{rule.label} {reason}",
        waiver=waiver if status == "waived" else None,
        number=number,
    )


def _use(waiver: Waiver, outcomes: Sequence[Outcome], day: date) -> WaiverUse:
    of = f"the waiver of {waiver.label} by {waiver.owner}"
    if any(outcome.waiver == waiver for outcome in outcomes):
        return WaiverUse(waiver, "active", f"{of} holds until {waiver.expires}: {waiver.reason}")
    if (void := waiver.trouble(day)) is not None:
        return WaiverUse(waiver, "void", f"{of} {void}")
    own = [outcome for outcome in outcomes if waiver.covers(outcome.rule)]
    why = f"its rule is {own[0].status}" if own else "no rule is about that"
    return WaiverUse(waiver, "unused", f"{of} is not used: {why}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _decide(record: AuditRecord, outcomes: Sequence[Outcome]) -> tuple[Status, str]:
    if record.errors:
        steps = ", ".join(dict.fromkeys(error.step for error in record.errors))
        return "incomplete", f"incomplete, {_count(len(record.errors), 'error')} in {steps}"
    if not record.measurements:
        return "nothing", "nothing was audited, the record holds no measurements"
    if not outcomes:
        return "nothing", "nothing was audited, the policy has no rules"

    def labels(*statuses: str) -> list[str]:
        return [outcome.rule.label for outcome in outcomes if outcome.status in statuses]

    rules = _count(len(outcomes), "rule")
    if unknown := labels("error", "missing"):
        return "incomplete", f"incomplete, no measurement for {len(unknown)} of {rules}: {', '.join(unknown)}"
    if failed := labels("failed"):
        return "blocked", f"blocked by {len(failed)} of {rules}: {', '.join(failed)}"
    if weak := labels("inconclusive"):
        return "incomplete", f"incomplete, {len(weak)} of {rules} inconclusive: {', '.join(weak)}"
    if not any(outcome.judged for outcome in outcomes):
        return "incomplete", f"incomplete, none of {rules} could be judged"
    warned, waived = labels("warned"), labels("waived")
    aside = f", {len(waived)} waived: {', '.join(waived)}" if waived else ""
    aside += f", {_count(len(warned), 'warning')}: {', '.join(warned)}" if warned else ""
    return "passed", f"passed, {len(outcomes) - len(warned) - len(waived)} of {rules} hold{aside}"


def judge(
    record: AuditRecord,
    policy: Policy | None = None,
    *,
    baseline: AuditRecord | None = None,
    first: bool = False,
    day: date | None = None,
) -> Verdict:
    """Hold `record` to `policy`, or to the policy that it was audited under.

    Parameters
    ----------
    record
        What the audit found about one subject.
    policy
        Rules to use in place of the record's own.
    baseline
        The record that rules on changes are taken from.
    first
        Whether there is no baseline yet: rules on changes warn then, rather than keep the verdict incomplete.
    day
        On which waivers must hold; today.

    Returns
    -------
    Verdict
        ``incomplete`` if the record has errors; ``nothing`` without measurements or rules; ``incomplete``
        if a blocking rule's measurement is missing or any rule's errored; ``blocked`` if a blocking rule is
        broken; ``incomplete`` if one is inconclusive or no rule could be judged; else ``passed``.

    Raises
    ------
    DataError
        If the baseline is of other eval data or other classes.
    """
    policy = record.policy if policy is None else policy
    day = today() if day is None else day
    if baseline is not None:
        check_comparable(baseline, record)
    outcomes = tuple(
        _outcome(number, one, record, policy.min_n, policy.waivers, day, baseline, first)
        for number, rule in enumerate(policy.rules)
        for one in _each(rule, record, baseline)
    )
    uses = tuple(_use(waiver, outcomes, day) for waiver in policy.waivers)
    status, words = _decide(record, outcomes)
    summary = f"{record.audit}/{record.subject}: {words}"
    verdict = Verdict(record.audit, record.subject, status, outcomes, summary, uses)
    if baseline is None:
        return verdict
    return replace(
        verdict, baseline=(baseline.audit, baseline.subject, baseline.digests.get("model", "unknown"))
    )
