"""Step: gather what the steps measured into the record of a subject, and turn suspicions into findings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import task

from candling.audit.policy import PolicySource, read_source
from candling.audit.record import Artifact, AuditRecord, Finding, Measurement, StepError, write_record
from candling.errors import ServiceError
from tasks.context import Workplace, read_findings
from tasks.environment import environment
from tasks.store import Stored

__all__ = ["decide"]


def _find(measurements: Sequence[Measurement], id: str, scope: Mapping[str, str]) -> Measurement | None:
    return next((m for m in measurements if m.id == id and m.scope == scope), None)


def background_finding(measurements: Sequence[Measurement]) -> Finding | None:
    """The suspicion that the background decides, tested by swaps against placebo swaps.

    Confirmed when the rate of conflict swaps that follow the background beats the placebo's with both
    intervals apart; dismissed when it does not; untested where there were no swaps.
    """
    follow = _find(measurements, "background.follow_rate", {})
    placebo = _find(measurements, "background.placebo_rate", {})
    if follow is None or placebo is None:
        return None
    evidence = tuple(m for m in measurements if m.id == "object_evidence.shapley_share" and len(m.scope) == 1)
    if follow.status != "ok" or placebo.status != "ok":
        return Finding(
            id="shortcut.background", kind="shortcut", status="untested",
            statement=f"Whether the background decides could not be tested: {follow.note or placebo.note}.",
            evidence=evidence,
        )  # fmt: skip
    values = (follow.value, follow.low, follow.high, placebo.value, placebo.low, placebo.high)
    rate, low, high, base, base_low, base_high = (v if v is not None else 0.0 for v in values)
    confirmed = low > base_high
    statement = (
        f"The background decides: {rate:.0%} of {follow.n} conflict swaps follow it, "
        f"{base:.0%} of {placebo.n} placebo swaps change the prediction."
        if confirmed
        else f"The background does not decide: {rate:.0%} of {follow.n} conflict swaps follow it, "
        f"no more than the {base:.0%} of {placebo.n} placebo swaps that change the prediction."
    )
    return Finding(
        id="shortcut.background", kind="shortcut", status="confirmed" if confirmed else "dismissed",
        statement=statement, evidence=evidence,
        test={
            "name": "conflict swaps against placebo swaps", "n": follow.n, "effect": round(rate - base, 8),
            "interval": [low, high], "placebo_interval": [base_low, base_high],
        },
    )  # fmt: skip


def _source(context: Workplace) -> PolicySource | None:
    """Where the rules stand, for who points at one; None where params hold none."""
    if not context.params.policy.rules:
        return None
    file = context.file.resolve()
    inside = file.is_relative_to(context.root.resolve())
    name = file.relative_to(context.root.resolve()).as_posix() if inside else file.name
    return read_source(file, name)


@task(name="decide")
def decide(
    context: Workplace,
    name: str,
    digests: Mapping[str, str],
    steps: Sequence[Stored],
    errors: Sequence[StepError],
    said: Mapping[str, str],
) -> Path:
    """Write `reports/<audit>/<subject>/record.json` with its pictures and return the folder."""
    measurements: list[Measurement] = []
    artifacts: list[Artifact] = []
    findings: list[Finding] = []
    notes = dict(said)
    folder = context.report / name
    part = folder.with_name(f".{name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for step in steps:
            found = read_findings(step.path)
            measurements += found.measurements
            artifacts += found.artifacts
            notes |= found.notes
            findings += found.findings
            for artifact in found.artifacts:
                target = part / artifact.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(step.path / artifact.path, target)
        swapped = background_finding(measurements)
        findings = [*([] if swapped is None else [swapped]), *findings]
        record = AuditRecord(
            audit=context.params.name,
            subject=name,
            kind=context.params.kind,
            title=context.params.title,
            classes=context.dataset.names,
            digests=dict(digests),
            measurements=tuple(sorted(measurements, key=lambda m: (m.id, sorted(m.scope.items())))),
            findings=tuple(findings),
            errors=tuple(errors),
            artifacts=tuple(artifacts),
            notes=notes,
            policy=context.params.policy,
            environment=environment(),
            source=_source(context),
        )
        write_record(record, part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise ServiceError(
            f"{folder}: cannot be written ({error.strerror}); free it and run again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
