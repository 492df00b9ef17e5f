"""Records: written whole or not at all, read with suspicion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from candling.audit.record import SCHEMA_VERSION, Measurement, read_record, write_record
from candling.errors import NothingAudited, RecordError
from tests.audit.records import CRASH, GOOD, record


def test_a_record_survives_the_round_trip_byte_for_byte(tmp_path: Path) -> None:
    made = record(*GOOD, errors=(CRASH,))
    path = write_record(made, tmp_path / "a" / "b")
    first = path.read_bytes()
    assert read_record(tmp_path / "a" / "b") == read_record(path) == made
    assert write_record(read_record(path), tmp_path / "a" / "b").read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def edited(tmp_path: Path, **changes: Any) -> Path:
    path = write_record(record(*GOOD), tmp_path)
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps(data))
    return path


def measurement(**changes: Any) -> list[dict[str, Any]]:
    return [{**GOOD[0].model_dump(mode="json"), **changes}]


BROKEN = {
    "newer schema": ({"schema_version": SCHEMA_VERSION + 1}, "upgrade candling"),
    "no schema": ({"schema_version": None}, "schema_version None"),
    "unknown key": ({"verdict": "passed"}, "verdict"),
    "NaN": ({"measurements": measurement(value=float("nan"))}, "NaN is not allowed"),
    "infinity": ({"measurements": measurement(high=float("inf"))}, "Infinity is not allowed"),
    "out of range": ({"measurements": measurement(value=1.5)}, "outside its range"),
    "unregistered": ({"measurements": measurement(id="a.b")}, "not registered"),
    "ok without a value": ({"measurements": measurement(value=None)}, "has no value"),
    "status": ({"measurements": measurement(status="fine")}, "measurements.0.status"),
    "a rule without a bound": (
        {"policy": {"rules": [{"measurement": "accuracy.overall"}]}},
        "needs at_least or at_most",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_record_that_was_edited_or_is_newer_is_refused(tmp_path: Path, case: str) -> None:
    changes, words = BROKEN[case]
    with pytest.raises(RecordError, match=words):
        read_record(edited(tmp_path, **changes))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_truncated_record_is_refused(tmp_path: Path, part: float) -> None:
    path = write_record(record(*GOOD), tmp_path)
    text = path.read_text().rstrip()
    path.write_text(text[: int(len(text) * part)])
    with pytest.raises(RecordError, match="not a readable record"):
        read_record(path)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RecordError):
        read_record(tmp_path)


def test_nothing_there_is_nothing_audited(tmp_path: Path) -> None:
    with pytest.raises(NothingAudited, match=r"no record\.json here"):
        read_record(tmp_path)
    with pytest.raises(NothingAudited):
        read_record(tmp_path / "nowhere")


def test_measurements_are_found_by_id_and_exact_scope() -> None:
    made = record(*GOOD)
    assert made.measurement("object_evidence.shapley_share") is None
    assert made.measurement("object_evidence.shapley_share", {"class": "tank"}) == GOOD[2]


def test_a_measurement_must_be_registered_and_in_range() -> None:
    with pytest.raises(ValidationError):
        Measurement(id="no.such", value=1.0)
    with pytest.raises(ValidationError):
        Measurement(id="accuracy.overall", value=1.1)
