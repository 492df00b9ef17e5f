"""The committed JSON schema is that of the records that are written, and of those that were."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from candling.audit.policy import Policy, Waiver
from candling.audit.record import AuditRecord, read_record
from candling.errors import RecordError
from tests.audit.records import ACCURACY, CRASH, GOOD, record

PLACE = Path(str(files("candling.audit") / "record.schema.json"))


@pytest.fixture(scope="module")
def schema() -> Any:
    return json.loads(PLACE.read_text(encoding="utf-8"))


def test_it_is_the_schema_of_the_code(schema: Any) -> None:
    assert AuditRecord.model_json_schema() == schema, "write it anew: python -m tests.audit.test_schema"


def test_records_fit_it(schema: Any) -> None:
    waiver = Waiver.model_validate(
        {"id": ACCURACY.measurement, "scope": {}, "reason": "known", "owner": "ann", "expires": "2027-01-01"}
    )
    made = record(*GOOD, errors=(CRASH,)).model_copy(
        update={"policy": Policy(rules=(ACCURACY,), waivers=(waiver,))}
    )
    jsonschema.validate(json.loads(made.to_json()), schema)
    broken = json.loads(made.to_json()) | {"verdict": "passed"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_records_of_the_first_schema_are_read(tmp_path: Path) -> None:
    old = json.loads(record(*GOOD).to_json()) | {"schema_version": 1}
    for key in ("coordinates", "source"):
        del old[key]
    del old["policy"]["waivers"]
    for rule in old["policy"]["rules"]:
        del rule["against"]
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_record(tmp_path).measurements == GOOD
    (tmp_path / "record.json").write_text(json.dumps(old | {"schema_version": 0}))
    with pytest.raises(RecordError, match="schema_version 0"):
        read_record(tmp_path)


if __name__ == "__main__":
    PLACE.write_text(json.dumps(AuditRecord.model_json_schema(), indent=2) + "\n", encoding="utf-8")
