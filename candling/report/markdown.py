"""Markdown: the comment on a pull request, and the summary of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from candling.report.audited import OUTCOME_WORDS, Audited
from candling.report.terminal import measured
from candling.report.text import markdown

__all__ = ["marker", "render", "summary"]

_WORST = 10
_COMMENT = 60_000  # characters; GitHub takes 65,536
_SUMMARY = 900_000  # bytes; GitHub takes a mebibyte
_FINDINGS = 10


def marker(audited: Audited) -> str:
    """A hidden line by which the comment on an audit is found again, to be updated in its place."""
    name = re.sub(r"[^A-Za-z0-9._/-]", "_", audited.name)[:200]
    return f"<!-- candling:{name} -->"


def render(audited: Audited) -> str:
    """A comment: the verdict first, the ten worst rules, what was confirmed, what changed, waivers."""
    return _within(_parts(audited, _WORST, _FINDINGS), audited, _COMMENT)


def summary(audited: Audited) -> str:
    """The same with all rules and findings, for the page of a job."""
    return _within(_parts(audited, None, None), audited, _SUMMARY // 4)


def _within(parts: Iterator[str], audited: Audited, most: int) -> str:
    """As many of the lines as there is room for, and how many more there are."""
    lines, left, room = list(parts), 0, most - 200
    kept: list[str] = []
    for line in lines:
        if left or len(line) + 1 > room:
            left += 1
        else:
            kept.append(line)
            room -= len(line) + 1
    if left:
        kept += ["", f"{left} more lines in {markdown(audited.report)}"]
    return "\n".join(kept) + "\n"


def _parts(audited: Audited, worst: int | None, findings: int | None) -> Iterator[str]:
    record, verdict = audited.record, audited.verdict
    yield marker(audited)
    yield f"## {markdown(audited.name)}: {audited.headline}"
    yield ""
    yield markdown(verdict.summary, 2000)
    yield ""
    if audited.comparison is None:
        yield "No baseline: nothing says what changed."
    else:
        yield f"Since the baseline: {markdown(audited.comparison.summary, 1000)}"
    yield from _problems(audited)
    yield from _rules(audited, worst)
    yield from _changes(audited, worst)
    yield from _findings(audited, findings)
    if verdict.waivers:
        yield from ("", "**Waivers**", "")
        for use in verdict.waivers:
            yield f"- {use.status}: {markdown(use.message)}"
    yield ""
    digest = record.digests.get("model", "unknown")
    rules = f"policy of {len(record.policy.rules)} rules"
    yield f"model {markdown(digest[:12])}, {rules}, report: {markdown(audited.report)}"


def _problems(audited: Audited) -> Iterator[str]:
    if audited.problems:
        yield from ("", "**Errors**", "")
        for problem in audited.problems:
            yield f"- {markdown(problem.title)}: {markdown(problem.message, 1000)}"


def _rules(audited: Audited, worst: int | None) -> Iterator[str]:
    shown = audited.worst[:worst]
    if not shown:
        return
    yield from ("", "| rule | measured | threshold | verdict |", "| --- | --- | --- | --- |")
    for outcome in shown:
        cells = (outcome.rule.label, measured(outcome), outcome.threshold, OUTCOME_WORDS[outcome.status])
        yield f"| {' | '.join(map(markdown, cells))} |"
    if len(shown) < len(audited.worst):
        yield from ("", f"{len(audited.worst) - len(shown)} more rules in {markdown(audited.report)}")


def _changes(audited: Audited, worst: int | None) -> Iterator[str]:
    if audited.comparison is None:
        return
    lines = [
        f"- {change.status}: {markdown(change.finding.statement)}"
        for change in audited.comparison.findings
        if change.status not in ("unchanged",)
    ]
    lines += [
        f"- {change.status}: {markdown(change.id)} {markdown(' '.join(change.scope.values()))} by "
        f"{change.difference.value:+.3g} [{change.difference.low:+.3g}, {change.difference.high:+.3g}]"
        for change in audited.comparison.significant
        if change.difference is not None
    ]
    if lines:
        yield from ("", "**Changes**", "", *lines[:worst])
        if worst is not None and len(lines) > worst:
            yield f"- {len(lines) - worst} more in {markdown(audited.report)}"


def _findings(audited: Audited, most: int | None) -> Iterator[str]:
    if audited.confirmed:
        yield from ("", "**Confirmed findings**", "")
        for finding in audited.confirmed[:most]:
            yield f"- {finding.kind}: {markdown(finding.statement)}"
        if most is not None and len(audited.confirmed) > most:
            yield f"- {len(audited.confirmed) - most} more in {markdown(audited.report)}"
