"""GitHub's workflow commands: an annotation for what does not hold, at the line of the rule."""

from __future__ import annotations

from collections.abc import Iterator

from candling.report.audited import OUTCOME_WORDS, Audited
from candling.report.text import clean

__all__ = ["render"]

# GitHub shows ten annotations of a level for each step, and cuts long ones.
_SHOWN = 10
_MOST = 1000
_LEVELS = {
    "failed": "error",
    "missing": "error",
    "error": "error",
    "inconclusive": "error",
    "warned": "warning",
    "waived": "notice",
}


def render(audited: Audited) -> str:
    """Annotations, the verdict first; what is no pass holds an error."""
    verdict = "notice" if audited.verdict.status == "passed" else "error"
    lines = [_command(verdict, audited, f"{audited.name}: {audited.headline}", audited.verdict.summary, None)]
    found = list(_found(audited))
    for level in ("error", "warning", "notice"):
        own = [(title, message, line) for kind, title, message, line in found if kind == level]
        # The verdict is one of its level; what is cut off is told by the last.
        room = _SHOWN - (level == verdict)
        shown = own if len(own) <= room else own[: room - 1]
        lines += [_command(level, audited, *one) for one in shown]
        if len(shown) < len(own):
            more = f"{len(own) - len(shown)} more in {audited.report}"
            lines.append(_command(level, audited, "and more", more, None))
    return "".join(f"{line}\n" for line in lines)


def _found(audited: Audited) -> Iterator[tuple[str, str, str, int | None]]:
    """Level, title, message and line of all that is to be told."""
    for problem in audited.problems:
        yield "error", problem.title, problem.message, None
    source = audited.record.source
    for outcome in audited.worst:
        if outcome.status != "passed":
            lines = source.lines if source else ()
            line = lines[outcome.number] if outcome.number < len(lines) else None
            why = f" ({outcome.rule.why})" if outcome.rule.why else ""
            title = f"{OUTCOME_WORDS[outcome.status]}: {outcome.rule.label}"
            yield _LEVELS[outcome.status], title, outcome.message + why, line
    for use in audited.verdict.waivers:
        if use.status != "active":
            yield "warning", f"waiver {use.status}", use.message, None


def _command(level: str, audited: Audited, title: str, message: str, line: int | None) -> str:
    properties = {"title": clean(title, 200)}
    if audited.record.source is not None:
        properties = {"file": clean(audited.record.source.file, _MOST), **properties}
        if line is not None:
            properties["line"] = str(line)
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{level} {given}::{_data(clean(message, _MOST))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
