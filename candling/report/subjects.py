"""The models that a page is about: name, verdict, and what says most about why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from candling.audit.gate import Outcome, Verdict
from candling.audit.record import AuditRecord

__all__ = ["Subject", "subjects_of", "tallies"]

_IDENTITY = {"model": "model", "data.eval": "eval data", "data.texts": "texts", "data.prompts": "prompts"}
_FEW = 3  # rules that a sentence may list
_SHORT_DIGEST = 12


@dataclass(frozen=True)
class Subject:
    index: int
    name: str
    record: AuditRecord
    folder: Path
    verdict: Verdict
    summary: str
    why: str
    identity: tuple[tuple[str, str, str], ...]
    strongest: Outcome | None
    outcomes: tuple[Outcome, ...]


def subjects_of(records: Sequence[tuple[AuditRecord, Path, Verdict]]) -> list[Subject]:
    many = len({record.audit for record, _, _ in records}) > 1
    names = [f"{r.audit} / {r.subject}" if many else r.subject for r, _, _ in records]
    if len(set(names)) < len(names):
        # Two audits of one subject, of which the first is the older.
        names = [f"{when}: {name}" for when, name in zip(("old", "new", *names), names, strict=False)]
    return [
        Subject(
            index=index,
            name=names[index],
            record=record,
            folder=folder,
            verdict=verdict,
            summary=_summary(verdict),
            why=_why(record, verdict),
            identity=_identity(record),
            strongest=_strongest(verdict),
            outcomes=tuple(_worst_first(verdict.outcomes)),
        )
        for index, (record, folder, verdict) in enumerate(records)
    ]


def _summary(verdict: Verdict) -> str:
    """The verdict's sentence without the subject that the card already names."""
    words = verdict.summary.removeprefix(f"{verdict.audit}/{verdict.subject}: ")
    failing = sum(outcome.status != "passed" for outcome in verdict.outcomes)
    if verdict.status == "blocked" or failing > _FEW:
        words = words.split(": ")[0]  # the card lists the rules by their titles
    return words[:1].upper() + words[1:]


def _why(record: AuditRecord, verdict: Verdict) -> str:
    """What was found and tested that speaks against a subject, in one sentence."""
    if verdict.status == "passed":
        return ""
    confirmed = (f for f in record.findings if f.status == "confirmed" and f.kind != "insight")
    return next((finding.statement for finding in confirmed), "")


def _identity(record: AuditRecord) -> tuple[tuple[str, str, str], ...]:
    """What was audited, on what, by which policy: name, short form, whole form."""
    digests = [(name, record.digests.get(key, "")) for key, name in _IDENTITY.items()]
    rules = len(record.policy.rules)
    told = f"{rules} {'rule' if rules == 1 else 'rules'}"
    if record.policy.waivers:
        told += f", {len(record.policy.waivers)} waived"
    where = record.source.file if record.source is not None else ""
    return (
        *(
            (name, digest.removeprefix("sha256:")[:_SHORT_DIGEST], digest)
            for name, digest in digests
            if digest
        ),
        ("policy", f"{told}, {where}" if where else told, where or told),
    )


def _worst_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    order = ("failed", "error", "missing", "inconclusive", "warned", "waived", "passed")
    return sorted(outcomes, key=lambda outcome: order.index(outcome.status))


def _strongest(verdict: Verdict) -> Outcome | None:
    """The outcome that says most about why a subject did not pass."""
    failed = [outcome for outcome in verdict.outcomes if outcome.status == "failed"]
    unknown = [
        outcome
        for status in ("error", "missing", "inconclusive")
        for outcome in verdict.outcomes
        if outcome.status == status
    ]
    if failed and (verdict.status == "blocked" or not unknown):
        return max(failed, key=_gap)
    return unknown[0] if unknown else None


def _gap(outcome: Outcome) -> float:
    """How far beyond its bound a failed rule's value lies, in units of the bound."""
    rule, value, gaps = outcome.rule, outcome.value, [0.0]
    if value is not None and rule.at_least is not None:
        gaps.append((rule.at_least - value) / max(abs(rule.at_least), 1e-9))
    if value is not None and rule.at_most is not None:
        gaps.append((value - rule.at_most) / max(abs(rule.at_most), 1e-9))
    return max(gaps)


def tallies(subjects: Sequence[Subject]) -> list[tuple[str, int]]:
    found = [subject.verdict.status for subject in subjects]
    order = ("blocked", "incomplete", "nothing", "passed")
    return [(status, found.count(status)) for status in order if status in found]
