"""The gate: a record held to a policy. Pure, and it fails closed: what is not known never passes.

An error outranks everything, as a record with errors is not whole; then a measurement that is missing;
then a bound that a measurement definitely breaks; then a measurement that is too weak to tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from candling.audit.policy import Policy, Rule
from candling.audit.record import AuditRecord, Measurement

__all__ = ["EXIT_CODES", "Outcome", "Verdict", "judge"]

Status = Literal["passed", "blocked", "incomplete", "nothing"]
OutcomeStatus = Literal["passed", "failed", "inconclusive", "missing", "error", "warned"]

EXIT_CODES: dict[Status, int] = {"passed": 0, "blocked": 1, "incomplete": 2, "nothing": 3}


@dataclass(frozen=True)
class Outcome:
    """What became of one rule.

    `warned` is a rule of severity ``warn`` that failed or could not be judged; `judged` tells which.
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
        }


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one record."""

    audit: str
    subject: str
    status: Status
    outcomes: tuple[Outcome, ...]
    summary: str

    @property
    def exit_code(self) -> int:
        """0 passed, 1 blocked, 2 incomplete or errored, 3 nothing was audited."""
        return EXIT_CODES[self.status]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "audit": self.audit,
            "subject": self.subject,
            "status": self.status,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
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
    if found.n is not None and found.n < min_n:
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


def _assess(rule: Rule, matches: Sequence[Measurement], min_n: int) -> tuple[OutcomeStatus, str]:
    """Status and reason, severity aside."""
    if not matches:
        return "missing", "was not measured"
    if len(matches) > 1:
        return "inconclusive", f"was recorded {len(matches)} times"
    found = matches[0]
    if found.status == "error":
        return "error", f"could not be measured: {found.note or 'its step failed'}"
    if any(_is_nan(number) for number in (found.value, found.low, found.high)):
        return "error", "is not a finite number"
    weakness = _weakness(rule, found, rule.min_n or min_n)
    if weakness is not None or found.value is None:
        return "inconclusive", weakness or "has no value"
    broken = _breaks(rule, found.value, found.low, found.high)
    if broken:
        return "failed", " and ".join(broken)
    return "passed", f"is {found.value:.4g}, {rule.threshold} as required"


def _outcome(rule: Rule, record: AuditRecord, min_n: int) -> Outcome:
    matches = [m for m in record.measurements if m.id == rule.measurement and m.scope == rule.scope]
    status, reason = _assess(rule, matches, min_n)
    found = matches[0] if len(matches) == 1 else None
    judged = status in ("passed", "failed")
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
    )


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
    warned = labels("warned")
    aside = f", {_count(len(warned), 'warning')}: {', '.join(warned)}" if warned else ""
    return "passed", f"passed, {len(outcomes) - len(warned)} of {rules} hold{aside}"


def judge(record: AuditRecord, policy: Policy | None = None) -> Verdict:
    """Hold `record` to `policy`, or to the policy that it was audited under.

    Parameters
    ----------
    record
        What the audit found about one subject.
    policy
        Rules to use in place of the record's own.

    Returns
    -------
    Verdict
        ``incomplete`` if the record has errors; ``nothing`` without measurements or rules; ``incomplete``
        if a blocking rule's measurement is missing or any rule's errored; ``blocked`` if a blocking rule is
        broken; ``incomplete`` if one is inconclusive or no rule could be judged; else ``passed``.
    """
    policy = record.policy if policy is None else policy
    outcomes = tuple(_outcome(rule, record, policy.min_n) for rule in policy.rules)
    status, words = _decide(record, outcomes)
    summary = f"{record.audit}/{record.subject}: {words}"
    return Verdict(record.audit, record.subject, status, outcomes, summary)
