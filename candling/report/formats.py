"""The formats of a verdict, by name."""

from __future__ import annotations

import json
from collections.abc import Callable

from candling.report import github, junit, markdown, modelcard, sarif
from candling.report.audited import Audited

__all__ = ["FORMATS"]


def _json(audited: Audited) -> str:
    told = audited.verdict.to_dict()
    told["comparison"] = None if audited.comparison is None else audited.comparison.to_dict()
    return json.dumps(told, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _html(audited: Audited) -> str:
    # Templates are read for this format alone.
    from candling.audit.gate import judge
    from candling.report.html import render

    found = [(audited.record, audited.folder, audited.verdict)]
    if audited.comparison is not None and audited.before is not None:
        old = audited.comparison.old
        found.insert(0, (old, audited.before, judge(old, first=True)))
    return render(found, title=f"Audit of {audited.name}", comparison=audited.comparison)


FORMATS: dict[str, Callable[[Audited], str]] = {
    "html": _html,
    "json": _json,
    "junit": junit.render,
    "sarif": sarif.render,
    "github": github.render,
    "summary": markdown.summary,
    "markdown": markdown.render,
    "model-card": modelcard.render,
}
