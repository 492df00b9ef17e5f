"""The steps of an audit of pictures: look, suspect, test; retrain where params say so, and look again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from candling.audit.record import StepError
from candling.errors import CandlingError
from flows.examination import Examination, told
from tasks.attack_model import attack_eval_set
from tasks.compute_entanglement import compute_matrix
from tasks.context import Context
from tasks.decide import decide
from tasks.generate_prototypes import generate
from tasks.import_data import import_data
from tasks.isolate_features import isolate_eval_set
from tasks.load_model import load
from tasks.measure_performance import measure
from tasks.retrain import retrain
from tasks.test_counterfactuals import test_background
from tasks.test_robustness import test_corruptions
from tasks.test_suspicions import test_suspicions
from tasks.visualize_channels import visualize

__all__ = ["begin_vision"]


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


def begin_vision(context: Context) -> tuple[Context, list[Examination]]:
    """Submit every step of every subject; the context comes back with its pictures."""
    settings = context.params
    first: Any = load.submit(context, settings.first_subject)
    try:
        context = with_data(context, first)
    except CandlingError as error:
        # A record of an earlier run must not speak for this one.
        for name in settings.subjects:
            decide(context, name, {}, [], [StepError(step="import data", message=told(error))], {})
        raise
    examinations = [examine(context, settings.first_subject, first)]
    for name in settings.made:
        examinations.append(examine(context, name, retrain.submit(context, name, first)))
    return context, examinations
