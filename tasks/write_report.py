"""Step: judge the records, and write the report, DVC's metrics and plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import task

from candling.audit.gate import Verdict, judge
from candling.audit.record import AuditRecord, read_record
from candling.report.html import write_html
from candling.writing import write_whole
from tasks.context import Workplace

__all__ = ["write_report"]


def metrics(records: Mapping[str, AuditRecord], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """What `dvc metrics show` prints: the verdict and every measurement of the whole subject."""
    return {
        name: {
            "verdict": verdicts[name].status,
            **{
                ".".join([m.id, *m.scope.values()]): m.value
                for m in record.measurements
                if m.value is not None and (not m.scope or list(m.scope) == ["class"])
            },
        }
        for name, record in records.items()
    }


def _rows(records: Mapping[str, AuditRecord], ids: Sequence[str], key: str) -> list[dict[str, Any]]:
    return [
        {
            "subject": name,
            key: " ".join([*([m.id] if len(ids) > 1 else []), *m.scope.values()]),
            "value": m.value, "low": m.low, "high": m.high,
        }
        for name, record in records.items()
        for m in record.measurements
        if m.id in ids and m.value is not None
    ]  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys() if rows else ["subject"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@task(name="write report")
def write_report(context: Workplace, folders: Mapping[str, Path]) -> dict[str, str]:
    """Write `report.html`, `metrics.json` and `plots/`, and return the verdict of each subject."""
    records = {name: read_record(folder) for name, folder in folders.items()}
    verdicts = {name: judge(record) for name, record in records.items()}
    report = context.report
    write_html(
        [(record, folders[name], verdicts[name]) for name, record in records.items()], report / "report.html"
    )
    text = json.dumps(metrics(records, verdicts), indent=2, sort_keys=True) + "\n"
    swaps = ["background.follow_rate", "background.placebo_rate"]
    write_whole(
        {
            report / "metrics.json": text,
            report / "plots" / "groups.csv": _table(_rows(records, ["accuracy.group"], "group")),
            report / "plots" / "counterfactuals.csv": _table(_rows(records, swaps, "swap")),
        }
    )
    return {name: verdict.status for name, verdict in verdicts.items()}
