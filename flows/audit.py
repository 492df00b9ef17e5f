"""The audit: one flow from a model and its data to a record, a report and a verdict a subject."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from candling.audit.record import StepError
from candling.errors import CandlingError
from tasks.attack_model import attack_eval_set
from tasks.compute_entanglement import compute_matrix
from tasks.context import Context, Listener, listener
from tasks.decide import decide
from tasks.generate_prototypes import generate
from tasks.import_data import import_data
from tasks.isolate_features import isolate_eval_set
from tasks.load_model import Subject, load
from tasks.logs import one_line_errors
from tasks.measure_performance import measure
from tasks.preflight import check_model, check_prefect, check_writable
from tasks.publish import publish_audit
from tasks.retrain import retrain
from tasks.store import Stored
from tasks.test_counterfactuals import test_background
from tasks.test_robustness import test_corruptions
from tasks.test_suspicions import test_suspicions
from tasks.tracking import check_tracking
from tasks.visualize_channels import check_layers, visualize
from tasks.write_report import write_report

__all__ = ["Outcome", "audit", "main"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What an audit left behind."""

    subjects: dict[str, Path]
    report: Path
    failed: bool
    gate_subject: str | None


@dataclass(frozen=True)
class Examination:
    """The steps under way for one subject, in the order in which they are told."""

    name: str
    subject: PrefectFuture[Subject]
    steps: dict[str, PrefectFuture[Any]]


def examine(context: Context, name: str, subject: Any) -> Examination:
    """Audit one subject: every step that does not need another runs beside it."""
    prototypes: Any = generate.submit(context, subject)
    entangled: Any = compute_matrix.submit(context, subject, prototypes)
    isolated: Any = isolate_eval_set.submit(context, subject)
    asked_for: dict[str, Any] = {}
    if context.params.channels is not None:
        asked_for["visualize channels"] = visualize.submit(context, subject)
    return Examination(
        name,
        subject,
        {
            "load model": subject,
            "generate prototypes": prototypes,
            **asked_for,
            "compute entanglement": entangled,
            "isolate features": isolated,
            "test suspicions": test_suspicions.submit(context, subject, isolated),
            "test counterfactuals": test_background.submit(context, subject),
            "measure performance": measure.submit(context, subject),
            "test robustness": test_corruptions.submit(context, subject),
            "attack model": attack_eval_set.submit(context, subject, entangled),
        },
    )


def with_data(context: Context, first: Any) -> Context:
    """The context with its pictures as the first subject sees them; as it was, where that failed to load."""
    first.wait()
    if not first.state.is_completed():
        return context
    imported: Any = import_data.submit(context, first)
    return replace(context, dataset=imported.result())


@dataclass(frozen=True)
class Conclusion:
    """Where a subject's record and model lie, and whether every step was done."""

    record: Path
    model: Path | None
    whole: bool


def conclude(context: Context, examination: Examination) -> Conclusion:
    """Wait for a subject's steps and decide; a step that failed is written down, never passed over."""
    done: list[Stored] = list(context.dataset.imports)
    errors: list[StepError] = []
    digests = {f"data.{split}": digest for split, digest in context.dataset.digests.items()}
    notes: dict[str, str] = {}
    model: Path | None = None
    for step, future in examination.steps.items():
        future.wait()
        if future.state.is_pending():  # for good, so there is no result to ask for
            errors.append(StepError(step=step, message="not run, because a step before it failed"))
            continue
        result = future.result(raise_on_failure=False)
        if future.state.is_completed() and isinstance(result, Subject):
            digests["model"], model = result.digest, result.folder
            digests |= {"model.answers": result.answers} if result.answers else {}
            notes |= {"model.notes": " ".join(result.notes)} if result.notes else {}
        elif future.state.is_completed():
            done.append(result)
        elif isinstance(result, CandlingError):
            errors.append(StepError(step=step, message=_told(result)))
        else:
            errors.append(StepError(step=step, message=f"crashed with {type(result).__name__}: {result}"))
    record = decide(context, examination.name, digests, done, errors, notes)
    return Conclusion(record, model, whole=not errors)


def _told(error: CandlingError) -> str:
    """The error's sentence without where this checkout lies: records are the same in every clone."""
    return str(error).replace(f"{ROOT}/", "")


# Most tasks wait for another; how many compute at once is `run_step`'s to say.
_RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)


@flow(name="audit", validate_parameters=False, task_runner=_RUNNER)
def audit(params: str = "params/tanks.yaml") -> State[Any]:
    """Audit a model: look, suspect, test, decide; retrain where params say so, and look again."""
    started = time.time()
    context = Context.of(ROOT, Path(params))
    settings = context.params

    first: Any = load.submit(context, settings.first_subject)
    try:
        context = with_data(context, first)
    except CandlingError as error:
        # A record of an earlier run must not speak for this one.
        for name in settings.subjects:
            decide(context, name, {}, [], [StepError(step="import data", message=_told(error))], {})
        raise
    examinations = [examine(context, settings.first_subject, first)]
    for name in settings.retrain.subjects if settings.retrain else ():
        examinations.append(examine(context, name, retrain.submit(context, name, first)))

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
    context = Context.of(ROOT, params.resolve())
    check_model(context.params.model, context.root, params)
    check_writable(context.report)
    check_writable(context.root / ".candling")
    check_tracking(context.root)
    check_prefect()
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
