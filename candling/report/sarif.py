"""SARIF 2.1.0: a result for each rule that does not hold, at its line of the params, and for failed steps."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import quote

from candling.audit.gate import Outcome
from candling.audit.measurements import REGISTRY
from candling.report.audited import Audited, Problem
from candling.report.text import clean

__all__ = ["render"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {
    "failed": "error",
    "missing": "error",
    "error": "error",
    "inconclusive": "error",
    "warned": "warning",
    "waived": "error",
}
_PROBLEMS = {
    "step-error": "A step of the audit failed",
    "nothing-audited": "Nothing was audited, or no rule could be judged",
}
_MOST = 2000


def render(audited: Audited) -> str:
    """The verdict as a SARIF log; what is no pass holds a result of level error that nothing suppresses."""
    outcomes = [outcome for outcome in audited.verdict.outcomes if outcome.status != "passed"]
    results = [_result(audited, outcome) for outcome in outcomes]
    results += [_problem(audited, problem) for problem in audited.problems]
    ids = sorted(
        {result["ruleId"] for result in results} | {o.rule.measurement for o in audited.verdict.outcomes}
    )
    for result in results:
        result["ruleIndex"] = ids.index(result["ruleId"])
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "candling", "version": _version(), "rules": [_rule(id) for id in ids]}
                },
                "automationDetails": {"id": f"candling/{clean(audited.name, _MOST)}/"},
                "invocations": [
                    {
                        "executionSuccessful": not audited.record.errors,
                        "exitCode": audited.verdict.exit_code,
                        "exitCodeDescription": audited.headline,
                    }
                ],
                "results": results,
                "columnKind": "unicodeCodePoints",
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _version() -> str:
    try:
        return version("candling")
    except PackageNotFoundError:
        return "0"


def _rule(id: str) -> dict[str, Any]:
    kind = REGISTRY.get(id)
    if kind is None:
        return {"id": id, "shortDescription": {"text": _PROBLEMS[id]}}
    return {
        "id": id,
        "shortDescription": {"text": kind.title},
        "fullDescription": {"text": f"{kind.formula}; {kind.source}"},
        "properties": {"unit": kind.unit, "better": kind.better},
    }


def _result(audited: Audited, outcome: Outcome) -> dict[str, Any]:
    why = f". {outcome.rule.why}" if outcome.rule.why else ""
    source = audited.record.source
    line = source.lines[outcome.number] if source and outcome.number < len(source.lines) else 1
    made = _made(
        audited,
        outcome.rule.measurement,
        _LEVELS[outcome.status],
        outcome.message + why,
        outcome.rule.label,
        line,
    )
    made["properties"] = {
        "status": outcome.status,
        "scope": {clean(key, _MOST): clean(value, _MOST) for key, value in outcome.rule.scope.items()},
        "threshold": outcome.threshold,
        "value": outcome.value,
        "low": outcome.low,
        "high": outcome.high,
        "n": outcome.n,
    }
    if outcome.waiver is not None:
        said = f"{outcome.waiver.owner}, until {outcome.waiver.expires}: {outcome.waiver.reason}"
        made["suppressions"] = [{"kind": "external", "justification": clean(said, _MOST)}]
    return made


def _problem(audited: Audited, problem: Problem) -> dict[str, Any]:
    return _made(audited, problem.id, "error", f"{problem.title}: {problem.message}", problem.title, 1)


def _made(audited: Audited, id: str, level: str, message: str, label: str, line: int) -> dict[str, Any]:
    source = audited.record.source
    file = source.file if source else f"reports/{audited.record.audit}/{audited.record.subject}/record.json"
    # The same rule of the same subject is the same alert, whatever its line and its figures.
    same = json.dumps([audited.record.audit, audited.record.subject, id, label])
    return {
        "ruleId": id,
        "level": level,
        "message": {"text": clean(message, _MOST)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(file.encode("utf-8", "replace"), safe="/-._~")},
                    "region": {"startLine": max(1, line)},
                }
            }
        ],
        "partialFingerprints": {"candling/v1": hashlib.sha256(same.encode()).hexdigest()},
    }
