"""The audit: one flow from a model and its data to a record, a report and a verdict a subject."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from candling.errors import CandlingError
from flows.examination import ROOT, conclude
from flows.language import begin_language
from flows.vision import begin_vision
from tasks.context import Listener, Workplace, listener
from tasks.language_context import LanguageContext, workplace
from tasks.load_language_model import check_language_model
from tasks.logs import one_line_errors
from tasks.preflight import check_model, check_prefect, check_writable
from tasks.prepare import prepare
from tasks.publish import publish_audit
from tasks.tracking import check_tracking
from tasks.visualize_channels import check_layers
from tasks.write_report import write_report

__all__ = ["Outcome", "audit", "main"]


@dataclass(frozen=True)
class Outcome:
    """What an audit left behind."""

    subjects: dict[str, Path]
    report: Path
    failed: bool
    gate_subject: str | None


# Most tasks wait for another; how many compute at once is `run_step`'s to say.
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)


@flow(name="audit", validate_parameters=False, task_runner=_RUNNER)
def audit(params: str = "params/tanks.yaml") -> State[Any]:
    """Audit a model: look, suspect, test, decide; retrain where params say so, and look again."""
    started = time.time()
    made = workplace(ROOT, Path(params))
    context: Workplace
    if isinstance(made, LanguageContext):
        context, examinations = made, begin_language(made)
    else:
        context, examinations = begin_vision(made)

    concluded = {e.name: conclude(context, e) for e in examinations}
    records = {name: c.record for name, c in concluded.items()}
    models = {name: c.model for name, c in concluded.items() if c.model}
    verdicts = write_report(context, records)
    publish_audit(context, records, models, verdicts, started)

    message = ", ".join(f"{name} {verdict}" for name, verdict in verdicts.items())
    data = {"verdicts": verdicts, "records": {name: str(path) for name, path in records.items()}}
    whole = all(c.whole for c in concluded.values())
    return Completed(message=message, data=data) if whole else Failed(message=message, data=data)


def main(params: Path, progress: Listener) -> Outcome:
    """Check everything that can be checked at once, run the flow, and say what it left behind.

    Raises
    ------
    CandlingError
        If params, data or a service cannot be used; nothing has been written then,
        unless pictures failed while they were imported, which leaves errored records.
    """
    prepare(params.resolve(), ROOT)
    context = workplace(ROOT, params.resolve())
    if isinstance(context, LanguageContext):
        check_language_model(context)
    else:
        check_model(context.params.model, context.root, params)
    check_writable(context.report)
    check_writable(context.root / ".candling")
    check_tracking(context.root)
    check_prefect()
    if not isinstance(context, LanguageContext):
        check_layers(context)
    token = listener.set(progress)
    try:
        with one_line_errors():
            state = audit(str(params.resolve()), return_state=True)
    finally:
        listener.reset(token)
    result = state.result(raise_on_failure=False)
    if not isinstance(result, dict):
        if isinstance(result, BaseException):
            raise result
        raise CandlingError(f"the flow ended as {state.name} without a record: {state.message}")
    return Outcome(
        subjects={name: Path(path) for name, path in result["records"].items()},
        report=context.report / "report.html",
        failed=state.is_failed(),
        gate_subject=context.params.gate,
    )
