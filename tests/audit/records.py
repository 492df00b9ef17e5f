"""Records that tests of the verdict side share."""

from __future__ import annotations

import math
from typing import Any

from candling.audit.policy import Policy, Rule
from candling.audit.record import AuditRecord, Measurement, StepError

TANK = {"class": "tank"}

ACCURACY = Rule(measurement="accuracy.worst_group", at_least=0.85, why="no group is left behind")
FOLLOW = Rule(measurement="background.follow_rate", at_most=0.2)
SHARE = Rule(measurement="object_evidence.shapley_share", scope=TANK, at_least=0.5)


def ok(id: str, value: float, spread: float = 0.02, n: int | None = 120, **more: Any) -> Measurement:
    return Measurement(id=id, value=value, low=value - spread, high=value + spread, n=n, **more)


GOOD = (
    ok("accuracy.worst_group", 0.93),
    ok("background.follow_rate", 0.05),
    ok("object_evidence.shapley_share", 0.8, scope=TANK),
)
BAD = (
    ok("accuracy.worst_group", 0.31),
    ok("background.follow_rate", 0.97),
    ok("object_evidence.shapley_share", 0.1, scope=TANK),
)


def unchecked(**changes: Any) -> Measurement:
    """A measurement that validation would refuse, as a bug elsewhere might make it."""
    fields = {
        "id": "accuracy.worst_group", "scope": {}, "value": 0.93, "low": 0.9, "high": 0.95, "n": 120,
        "status": "ok", "note": "",
    }  # fmt: skip
    return Measurement.model_construct(**{**fields, **changes})


NAN = math.nan


def record(
    *measurements: Measurement,
    rules: tuple[Rule, ...] = (ACCURACY, FOLLOW, SHARE),
    errors: tuple[StepError, ...] = (),
    **more: Any,
) -> AuditRecord:
    made = AuditRecord(
        audit=more.pop("audit", "tanks"), subject=more.pop("subject", "before"), kind="vision",
        digests={"model": "0" * 64, "data.eval": "e" * 64}, measurements=(), errors=errors,
        policy=Policy(rules=rules),
        environment={"python": "3.11"}, **more,
    )  # fmt: skip
    # Copied in, so that measurements that validation refuses can be tried as well.
    return made.model_copy(update={"measurements": measurements})


CRASH = StepError(step="isolate features", message="out of memory")
