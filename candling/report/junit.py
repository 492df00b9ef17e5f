"""JUnit XML: a test case for each rule, one for each step that failed, and one for the verdict."""

from __future__ import annotations

from xml.etree import ElementTree

from candling.audit.gate import Outcome
from candling.report.audited import OUTCOME_WORDS, Audited
from candling.report.text import clean

__all__ = ["render"]

_KINDS = {
    "failed": "failure",
    "inconclusive": "error",
    "missing": "error",
    "error": "error",
    "warned": "skipped",
    "waived": "skipped",
}
_MOST = 2000


def render(audited: Audited) -> str:
    """The verdict as JUnit XML; what is no pass holds a failure or an error."""
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name=clean(audited.name, _MOST))
    for outcome in audited.verdict.outcomes:
        _rule(suite, audited, outcome)
    for problem in audited.problems:
        _add(suite, audited, problem.title, "error", problem.id, problem.message)
    kind = {"passed": None, "blocked": "failure"}.get(audited.verdict.status, "error")
    _add(suite, audited, "verdict", kind, audited.verdict.status, audited.verdict.summary)
    counts = {"tests": len(suite)} | {
        f"{kind}s" if kind != "skipped" else kind: len(suite.findall(f"testcase/{kind}"))
        for kind in ("failure", "error", "skipped")
    }
    for element in (root, suite):
        for name, count in counts.items():
            element.set(name, str(count))
        element.set("time", "0")
    root.set("name", "candling")
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _rule(suite: ElementTree.Element, audited: Audited, outcome: Outcome) -> None:
    why = f" ({outcome.rule.why})" if outcome.rule.why else ""
    name = f"{outcome.rule.label}, {outcome.threshold}"
    kind = _KINDS.get(outcome.status)
    _add(suite, audited, name, kind, OUTCOME_WORDS[outcome.status], outcome.message + why)


def _add(
    suite: ElementTree.Element, audited: Audited, name: str, kind: str | None, type: str, message: str
) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", name=clean(name, _MOST), classname=clean(f"candling.{audited.name}", _MOST),
        time="0",
    )  # fmt: skip
    said = clean(message, _MOST)
    if kind == "skipped":
        ElementTree.SubElement(case, kind, message=f"{type}: {said}")
    elif kind is not None:
        ElementTree.SubElement(case, kind, message=said, type=type).text = said
