"""What an audit found about one subject, as plain frozen data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from candling.audit.measurements import check_measurement
from candling.audit.policy import Policy, PolicySource
from candling.errors import NothingAudited, RecordError
from candling.writing import write_whole

__all__ = [
    "SCHEMA_VERSION",
    "Artifact",
    "AuditRecord",
    "Finding",
    "Measurement",
    "StepError",
    "measured",
    "read_record",
    "write_record",
]

SCHEMA_VERSION = 2

Number = Annotated[float, Field(allow_inf_nan=False)]
Scope = dict[str, str]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measurement(Frozen):
    """One registered quantity, for one scope, with its sample size and 95% interval.

    `value` is None only where `status` is not ``ok``.
    """

    id: str
    scope: Scope = {}
    value: Number | None
    low: Number | None = None
    high: Number | None = None
    n: int | None = None
    status: Literal["ok", "inconclusive", "error"] = "ok"
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Measurement:
        if self.status == "ok" and self.value is None:
            raise ValueError(f"measurement {self.id!r} is 'ok' but has no value")
        check_measurement(self.id, self.value)
        return self


# Eight digits are more than any interval means and hide the last bits of float arithmetic.
_DIGITS = 8


def measured(
    id: str,
    estimate: tuple[float, float, float, int] | None,
    scope: Mapping[str, str] | None = None,
    *,
    least: int = 2,
    note: str = "",
) -> Measurement:
    """A measurement of `estimate`: its value, the ends of its interval and n.

    It is inconclusive where there is none, it is not finite, or n is under `least`.
    """
    scope = dict(scope or {})
    if estimate is None:
        return Measurement(id=id, scope=scope, value=None, n=0, status="inconclusive", note=note or "no data")
    value, low, high = (round(x, _DIGITS) if math.isfinite(x) else None for x in estimate[:3])
    n = estimate[3]
    enough = None not in (value, low, high) and n >= least
    if not enough and not note:
        note = f"{n} {'is' if n == 1 else 'are'} too few" if n < least else "not a finite number"
    return Measurement(
        id=id, scope=scope, value=value, low=low, high=high, n=n,
        status="ok" if enough else "inconclusive", note=note,
    )  # fmt: skip


class Finding(Frozen):
    """A suspicion and the test that confirmed or dismissed it."""

    id: str
    kind: Literal["shortcut", "bias", "confusion", "weakness", "leak", "insight"]
    scope: Scope = {}
    status: Literal["confirmed", "dismissed", "untested"]
    statement: str
    evidence: tuple[Measurement, ...] = ()
    test: dict[str, Any] | None = None


class Artifact(Frozen):
    """A file that the audit wrote beside the record: a picture or a table.

    `path` is relative to the record's folder; `section` says which part of the report shows it.
    """

    path: str
    sha256: str
    section: Literal[
        "prototypes",
        "channels",
        "entanglement",
        "isolation",
        "counterfactuals",
        "attacks",
        "groups",
        "suspicions",
        "associations",
        "attribution",
        "glitches",
    ]
    caption: str = ""
    scope: Scope = {}
    values: dict[str, Number] = {}


class StepError(Frozen):
    """A step that failed, in the words that the user saw."""

    step: str
    message: str


class AuditRecord(Frozen):
    """All that an audit found about one subject; the gate and every report read only this.

    `record.schema.json` beside this module is its schema.
    """

    schema_version: int = SCHEMA_VERSION
    audit: str
    subject: str
    kind: Literal["vision", "language"]
    title: str = ""
    classes: tuple[str, ...] = ()
    digests: dict[str, str]
    measurements: tuple[Measurement, ...]
    findings: tuple[Finding, ...] = ()
    errors: tuple[StepError, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    notes: dict[str, str] = {}
    policy: Policy = Policy()
    environment: dict[str, str]
    # Where the policy was read, for those who point at a rule.
    source: PolicySource | None = None
    # Where the record stands in a series: the step of a checkpoint, the hyper-parameters of a run.
    coordinates: dict[str, Number] = {}

    def measurement(self, id: str, scope: Scope | None = None) -> Measurement | None:
        """The measurement with this id and exactly this scope, or None."""
        wanted = scope or {}
        return next((m for m in self.measurements if m.id == id and m.scope == wanted), None)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, two-space indent, no NaN, one final newline."""
        return (
            json.dumps(
                self.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False
            )
            + "\n"
        )


def write_record(record: AuditRecord, folder: Path) -> Path:
    """Write `record.json` into `folder`, whole or not at all."""
    path = folder / "record.json"
    write_whole({path: record.to_json()})
    return path


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not allowed")


def read_record(path: Path) -> AuditRecord:
    """Read a record from its folder or file.

    Raises
    ------
    NothingAudited
        If there is no record at `path`.
    RecordError
        If it is truncated, not a record, from a newer schema, or holds NaN.
    """
    file = path / "record.json" if path.is_dir() else path
    if not file.is_file():
        raise NothingAudited(f"{path}: no record.json here; run `candling audit` first")
    try:
        data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, OSError) as error:
        raise RecordError(f"{file}: not a readable record ({error}); run the audit again") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise RecordError(
            f"{file}: schema_version {version!r} is not one this candling reads "
            f"(up to {SCHEMA_VERSION}); upgrade candling or run the audit again"
        )
    try:
        return AuditRecord.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{file}: {where}: {first['msg']}; run the audit again") from error
