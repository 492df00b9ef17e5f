"""Step: tell MLflow what happened, and leave beside each record what differs from run to run."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from prefect import task

from tasks.context import Workplace
from tasks.environment import run_facts
from tasks.tracking import publish

__all__ = ["publish_audit"]


@task(name="publish")
def publish_audit(
    context: Workplace,
    records: Mapping[str, Path],
    models: Mapping[str, Path],
    verdicts: Mapping[str, str],
    started: float,
) -> None:
    """One MLflow run a subject; `run.json` beside each record holds times, host and tracking ids."""
    tracked = publish(
        context.params.name, records, verdicts, models, context.report / "report.html",
        context.params.model_dump(mode="json"), context.dataset.digests,
        root=context.root, approve=context.params.gate,
    )  # fmt: skip
    facts = run_facts(context.root) | {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 1),
        "mlflow": tracked,
    }
    for folder in records.values():
        # By which `candling verify` sees that the record was not touched since.
        own = {"record": hashlib.sha256((folder / "record.json").read_bytes()).hexdigest()}
        text = json.dumps(facts | own, indent=2, sort_keys=True) + "\n"
        (folder / "run.json").write_text(text, encoding="utf-8")
