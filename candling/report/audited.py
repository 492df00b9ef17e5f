"""What every emitter is given, and the words that they share.

An emitter turns one audited subject into one format and computes nothing. Each must say what the gate says:
whatever did not pass is a failure or an error in its format too, also where no rule stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from candling.audit.comparison import Comparison
from candling.audit.gate import Outcome, OutcomeStatus, Status, Verdict
from candling.audit.record import AuditRecord, Finding

__all__ = ["OUTCOME_WORDS", "VERDICT_WORDS", "Audited", "Problem"]

VERDICT_WORDS: dict[Status, str] = {
    "passed": "passed",
    "blocked": "blocked",
    "incomplete": "incomplete",
    "nothing": "nothing audited",
}
OUTCOME_WORDS: dict[OutcomeStatus, str] = {
    "passed": "passed",
    "failed": "failed",
    "warned": "warning",
    "waived": "waived",
    "inconclusive": "inconclusive",
    "missing": "not measured",
    "error": "error",
}
_BREAKS: tuple[OutcomeStatus, ...] = ("failed", "error", "missing", "inconclusive")
_ORDER: tuple[OutcomeStatus, ...] = (
    "error", "missing", "failed", "inconclusive", "warned", "waived", "passed",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What keeps a subject from a pass and no rule stands for: a step that failed, or nothing audited."""

    id: str
    title: str
    message: str


@dataclass(frozen=True)
class Audited:
    """One subject, the gate's verdict on it, and what changed since a baseline where there is one.

    report: where the whole report is, as readers of the format find it. folder: where the record's artifacts
    lie, and `before` those of the baseline.
    """

    record: AuditRecord
    verdict: Verdict
    comparison: Comparison | None = None
    report: str = "report.html"
    folder: Path = Path()
    before: Path | None = None

    @property
    def name(self) -> str:
        """Audit and subject."""
        return f"{self.record.audit}/{self.record.subject}"

    @property
    def headline(self) -> str:
        """The verdict in words."""
        return VERDICT_WORDS[self.verdict.status]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Steps that failed; and where nothing else says why there is no pass, the verdict itself."""
        found = [Problem("step-error", f"{error.step} failed", error.message) for error in self.record.errors]
        told = found or any(outcome.status in _BREAKS for outcome in self.verdict.outcomes)
        if self.verdict.status != "passed" and not told:
            found.append(Problem("nothing-audited", self.headline, self.verdict.summary))
        return tuple(found)

    @property
    def worst(self) -> tuple[Outcome, ...]:
        """All outcomes, those that weigh most first."""
        return tuple(sorted(self.verdict.outcomes, key=lambda outcome: _ORDER.index(outcome.status)))

    @property
    def confirmed(self) -> tuple[Finding, ...]:
        """Findings that were confirmed, insights last."""
        found = [finding for finding in self.record.findings if finding.status == "confirmed"]
        return tuple(sorted(found, key=lambda finding: finding.kind == "insight"))
