"""An audit of a few tiny pictures: the steps of `flows/audit.py` in their order, without a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from candling.audit.record import AuditRecord, Measurement, StepError, read_record
from candling.errors import CandlingError
from tasks.attack_model import attack_eval_set
from tasks.compute_entanglement import compute_matrix
from tasks.context import Context
from tasks.decide import decide
from tasks.generate_prototypes import generate
from tasks.import_data import import_data
from tasks.isolate_features import isolate_eval_set
from tasks.load_model import load
from tasks.measure_performance import measure
from tasks.preflight import check_model
from tasks.store import Stored
from tasks.test_counterfactuals import test_background
from tasks.test_robustness import test_corruptions
from tasks.test_suspicions import test_suspicions
from tasks.visualize_channels import visualize

__all__ = ["audited", "by_scope"]

_SMALL: dict[str, Any] = {
    "name": "forms",
    "prototypes": {"parameterisation": "fourier", "seeds": 1, "steps": 3},
    "isolation": {"images": 6, "method": "windows", "side": 16, "stride": 16, "pictures": 1},
    "robustness": {"images": 6, "severities": [1]},
    "attacks": {"images": 6, "steps": 3, "pictures": 2},
    "policy": {"rules": [{"measurement": "accuracy.overall", "at_least": 0.5}]},
}


def audited(root: Path, model: str | dict[str, Any], data: dict[str, Any], **more: Any) -> AuditRecord:
    """The record of `model` on `data`, both as a person writes them in params, in the repository `root`.

    What stops the flow is raised; of the steps that look at the model an error becomes part of the record.
    """
    file = root / "params" / "forms.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**_SMALL, "model": model, "data": data, **more}, allow_unicode=True))
    context = Context.of(root, file)
    check_model(context.params.model, root, file)
    subject = load.fn(context, "model")
    context = replace(context, dataset=import_data.fn(context, subject))

    done: list[Stored] = list(context.dataset.imports)
    errors: list[StepError] = []
    digests = {f"data.{role}": digest for role, digest in context.dataset.digests.items()}
    digests["model"] = subject.digest

    def attempt(step: str, *arguments: Any) -> Stored | None:
        try:
            found: Stored = _STEPS[step].fn(context, subject, *arguments)
        except CandlingError as error:
            errors.append(StepError(step=step, message=str(error)))
            return None
        done.append(found)
        return found

    def after(first: str, *steps: str) -> None:
        """One step, and others of which each needs what the one before it found."""
        found = attempt(first)
        for step in steps:
            if found is None:
                errors.append(StepError(step=step, message="not run: a step before it failed"))
            else:
                found = attempt(step, found)

    after("generate prototypes", "compute entanglement", "attack model")
    if context.params.channels is not None:
        attempt("visualize channels")
    after("isolate features", "test suspicions")
    for step in ("test counterfactuals", "measure performance", "test robustness"):
        attempt(step)
    return read_record(decide.fn(context, "model", digests, done, errors, {}))


_STEPS: dict[str, Any] = {
    "generate prototypes": generate,
    "visualize channels": visualize,
    "compute entanglement": compute_matrix,
    "isolate features": isolate_eval_set,
    "test suspicions": test_suspicions,
    "test counterfactuals": test_background,
    "measure performance": measure,
    "test robustness": test_corruptions,
    "attack model": attack_eval_set,
}


def by_scope(record: AuditRecord) -> dict[tuple[str, tuple[tuple[str, str], ...]], Measurement]:
    """Measurements by what they measure, which is never measured twice."""
    found = {(m.id, tuple(sorted(m.scope.items()))): m for m in record.measurements}
    assert len(found) == len(record.measurements)
    return found
