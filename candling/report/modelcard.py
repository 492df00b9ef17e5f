"""A model card: metadata as the Hugging Face hub reads it, then what the audit found, limits first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from candling.audit.measurements import REGISTRY
from candling.report.audited import OUTCOME_WORDS, Audited
from candling.report.terminal import measured
from candling.report.text import clean, markdown

__all__ = ["render"]

_MOST = 300
_TASKS = {"vision": "image-classification", "language": "text-generation"}
_METRICS = {"accuracy.overall": "accuracy", "perplexity.held_out": "perplexity"}


def render(audited: Audited) -> str:
    """Front matter and text; what did not pass, and what is waived, stands under limitations."""
    front = yaml.safe_dump(_metadata(audited), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n".join(_text(audited)) + "\n"


def _metadata(audited: Audited) -> dict[str, Any]:
    record = audited.record
    name = clean(audited.name, _MOST)
    metrics = [
        {"type": _METRICS.get(m.id, m.id), "name": REGISTRY[m.id].title, "value": m.value}
        for m in record.measurements
        if not m.scope and m.status == "ok" and m.value is not None
    ]
    return {
        "pipeline_tag": _TASKS[record.kind],
        "tags": ["candling", f"candling-{audited.verdict.status}"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": _TASKS[record.kind]},
                        "dataset": {"name": "eval set of the audit", "type": f"candling-{name}"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def _text(audited: Audited) -> Iterator[str]:
    record, verdict = audited.record, audited.verdict
    yield f"# {markdown(record.title or audited.name)}"
    yield ""
    yield f"Audited with candling: **{audited.headline}**. {markdown(verdict.summary, 2000)}"
    yield from ("", "## Limitations", "")
    limits = [
        f"- {markdown(problem.title)}: {markdown(problem.message, 1000)}" for problem in audited.problems
    ]
    limits += [
        f"- {OUTCOME_WORDS[outcome.status]}: {markdown(outcome.message, 1000)}"
        for outcome in audited.worst
        if outcome.status != "passed"
    ]
    limits += [
        f"- {finding.kind}: {markdown(finding.statement, 1000)}"
        for finding in audited.confirmed
        if finding.kind != "insight"
    ]
    limits += [
        f"- not tested: {markdown(note, 1000)}"
        for key, note in sorted(record.notes.items())
        if key.startswith("left_out.")
    ]
    yield from limits or ["None was found by the rules and tests of this audit."]
    if verdict.waivers:
        yield from ("", "## Waivers", "")
        for use in verdict.waivers:
            yield f"- {use.status}: {markdown(use.message, 1000)}"
    yield from (
        "",
        "## Evaluation",
        "",
        "| rule | measured | threshold | verdict |",
        "| --- | --- | --- | --- |",
    )
    for outcome in audited.worst:
        cells = (outcome.rule.label, measured(outcome), outcome.threshold, OUTCOME_WORDS[outcome.status])
        yield f"| {' | '.join(map(markdown, cells))} |"
    yield from ("", "## What was audited", "")
    for key, digest in sorted(record.digests.items()):
        yield f"- {markdown(key)}: {markdown(digest, 64)}"
    if audited.comparison is not None:
        yield from ("", "## Since the baseline", "", markdown(audited.comparison.summary, 1000))
