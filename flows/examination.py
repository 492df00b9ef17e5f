"""What is under way for one subject, and how it ends: with a record, whatever failed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.futures import PrefectFuture

from candling.audit.record import StepError
from candling.errors import CandlingError
from tasks.context import Workplace
from tasks.decide import decide
from tasks.load_model import Subject
from tasks.store import Stored

__all__ = ["ROOT", "Conclusion", "Examination", "conclude", "told"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Examination:
    """The steps under way for one subject, in the order in which they are told."""

    name: str
    subject: PrefectFuture[Subject]
    steps: dict[str, PrefectFuture[Any]]


@dataclass(frozen=True)
class Conclusion:
    """Where a subject's record and model lie, and whether every step was done."""

    record: Path
    model: Path | None
    whole: bool


def conclude(context: Workplace, examination: Examination) -> Conclusion:
    """Wait for a subject's steps and decide; a step that failed is written down, never passed over."""
    done: list[Stored] = list(context.dataset.imports)
    errors: list[StepError] = []
    digests = {f"data.{role}": digest for role, digest in context.dataset.digests.items()}
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
            digests |= {"model.weights": result.weights} if result.weights else {}
            notes |= {"model.notes": " ".join(result.notes)} if result.notes else {}
        elif future.state.is_completed():
            done.append(result)
        elif isinstance(result, CandlingError):
            errors.append(StepError(step=step, message=told(result)))
        else:
            errors.append(StepError(step=step, message=f"crashed with {type(result).__name__}: {result}"))
    record = decide(context, examination.name, digests, done, errors, notes)
    return Conclusion(record, model, whole=not errors)


def told(error: CandlingError) -> str:
    """The error's sentence without where this checkout lies: records are the same in every clone."""
    return str(error).replace(f"{ROOT}/", "")
