from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from candling.audit.record import AuditRecord, Measurement, read_record, write_record
from candling.cli.main import run
from candling.errors import ModelError, ServiceError
from candling.models import model_digest
from tasks.tracking import check_tracking, flattened, metric_name, promote, publish, tracking_uri

PARAMS = {"seed": 0, "data": {"classes": ["no_tank", "tank"]}, "policy": {"rules": [{"at_least": 0.8}]}}


class Audit:
    """A tiny audit on disk, and what is published of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.verdicts: dict[str, str] = {}
        self.records: dict[str, Path] = {}
        self.models: dict[str, Path] = {}
        self.report = root / "reports" / "tiny" / "report.html"

    def subject(self, name: str, verdict: str, accuracy: float = 0.5) -> None:
        model = self.root / "models" / name
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.safetensors").write_bytes(name.encode())
        (model / "spec.json").write_text("{}")
        record = AuditRecord(
            audit="tiny",
            subject=name,
            kind="vision",
            classes=("no_tank", "tank"),
            digests={"model": model_digest(model)},
            measurements=(
                Measurement(id="accuracy.overall", value=accuracy, low=0.4, high=0.6, n=100),
                Measurement(id="object_evidence.share", scope={"class": "tank"}, value=0.25),
                Measurement(id="accuracy.group", scope={"group": "tank, snow"}, value=0.75),
                Measurement(id="background.follow_rate", value=None, status="inconclusive", n=0),
            ),
            environment={},
        )
        folder = self.root / "reports" / "tiny" / name
        write_record(record, folder)
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / "a.png").write_bytes(b"png")
        self.report.write_text(f"<html>{name} {verdict} {accuracy}")
        self.report.with_name("metrics.json").write_text("{}")
        self.records[name], self.models[name], self.verdicts[name] = folder, model, verdict

    def publish(self, **changes: Any) -> dict[str, Any]:
        return publish(
            "tiny", self.records, self.verdicts, self.models, self.report, PARAMS, {"eval": "d" * 64},
            root=self.root, **changes,
        )  # fmt: skip

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri(self.root))

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name("candling/tiny")
        assert experiment is not None
        return list(self.client.search_runs([experiment.experiment_id]))

    def approved(self) -> str | None:
        alias = self.client.get_registered_model("tiny").aliases.get("approved")
        return None if alias is None else str(alias)


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path.parent)  # nothing may depend on the working folder
    audit = Audit(tmp_path)
    audit.subject("before", "blocked")
    audit.subject("after", "passed", 0.9)
    return audit


def test_runs_versions_and_alias(audit: Audit) -> None:
    found = audit.publish()
    client = audit.client
    assert found["uri"] == f"sqlite:///{audit.root}/mlflow.db"

    parent = client.get_run(found["run"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["policy.rules.0.at_least"] == "0.8"
    assert parent.data.tags["candling.verdict.before"] == "blocked"
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {"report.html", "metrics.json"}

    child = client.get_run(found["runs"]["before"])
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["candling.verdict"] == "blocked"
    assert child.data.tags["candling.model_digest"] == model_digest(audit.models["before"])
    assert child.data.tags["candling.data_digest.eval"] == "d" * 64
    assert child.data.params["data.classes"] == '["no_tank", "tank"]'
    metrics = dict(child.data.metrics)
    assert metrics.pop("accuracy.overall") == 0.5
    assert metrics.pop("object_evidence.share.class_1") == 0.25
    ((group, value),) = metrics.items()
    assert group.startswith("accuracy.group.group_tank_snow-")
    assert value == 0.75

    folder = Path(client.download_artifacts(child.info.run_id, ""))
    assert folder.is_relative_to(audit.root / "mlartifacts")
    record = audit.records["before"] / "record.json"
    assert (folder / "record.json").read_bytes() == record.read_bytes()
    assert (folder / "pictures" / "a.png").read_bytes() == b"png"
    assert (folder / "model" / "model.safetensors").read_bytes() == b"before"
    table = json.loads((folder / "tables" / "measurements.json").read_text())
    assert table["columns"][:3] == ["id", "scope", "value"]
    assert len(table["data"]) == 4

    version = client.get_model_version("tiny", found["versions"]["after"])
    assert version.run_id == found["runs"]["after"]
    assert version.tags["candling.subject"] == "after"
    assert version.tags["candling.verdict"] == "passed"
    approved = client.get_model_version_by_alias("tiny", "approved")
    assert str(approved.version) == found["approved"] == found["versions"]["after"]
    assert approved.tags["candling.digest"] == model_digest(audit.models["after"])
    assert (Path(str(approved.source).removeprefix("file://")) / "spec.json").read_text() == "{}"


def test_the_same_again_makes_nothing_new(audit: Audit) -> None:
    first = audit.publish()
    assert audit.publish() == first
    assert len(audit.runs()) == 3
    assert len(audit.client.search_model_versions("name = 'tiny'")) == 2


def test_one_subject_anew(audit: Audit) -> None:
    first = audit.publish()
    audit.subject("after", "passed", 0.95)
    second = audit.publish()
    assert second["runs"]["before"] == first["runs"]["before"]
    assert second["runs"]["after"] != first["runs"]["after"]
    assert second["approved"] == second["versions"]["after"] != first["approved"]
    parent = audit.client.get_run(second["run"])
    assert parent.data.tags["candling.run.before"] == first["runs"]["before"]


def test_alias_is_not_moved_by_the_blocked(audit: Audit) -> None:
    first = audit.publish()
    audit.subject("after", "blocked", 0.1)
    second = audit.publish()
    assert second["approved"] is None
    assert audit.approved() == first["approved"]


def test_nothing_is_approved_where_nothing_passed(audit: Audit) -> None:
    assert audit.publish(approve="before")["approved"] is None
    assert audit.approved() is None


def test_the_subject_to_approve_can_be_named(audit: Audit) -> None:
    audit.verdicts["before"] = "passed"
    found = audit.publish(approve="before")
    assert audit.approved() == found["versions"]["before"]


def test_verdict_that_changed_is_told(audit: Audit) -> None:
    first = audit.publish()
    audit.verdicts["after"] = "incomplete"
    second = audit.publish()
    assert second["runs"] == first["runs"]
    assert audit.client.get_run(second["runs"]["after"]).data.tags["candling.verdict"] == "incomplete"
    version = audit.client.get_model_version("tiny", second["versions"]["after"])
    assert version.tags["candling.verdict"] == "incomplete"


def test_subject_without_a_model(audit: Audit) -> None:
    del audit.models["after"]
    found = audit.publish()
    assert list(found["versions"]) == ["before"]
    assert found["approved"] is None
    assert found["runs"]["after"]


def test_model_that_was_not_audited(audit: Audit) -> None:
    (audit.models["after"] / "model.safetensors").write_bytes(b"swapped")
    with pytest.raises(ModelError, match="not the model that"):
        audit.publish()
    assert not (audit.root / "mlflow.db").exists()


def test_failed_midway(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", full)
        with pytest.raises(ServiceError, match=r"did not take the audit .*No space left"):
            audit.publish()
    assert [run.info.status for run in audit.runs()] == ["FAILED", "FAILED"]
    found = audit.publish()  # what failed is not found again
    assert found["approved"]
    assert len(audit.runs()) == 5


def test_check_embedded(audit: Audit) -> None:
    check_tracking(audit.root)
    with pytest.raises(ServiceError, match="cannot be written"):
        check_tracking(audit.report)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}", "postgresql://u:secret@127.0.0.1:{port}/mlflow"])
def test_check_refused(
    uri: str, free_port: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=free_port()))
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=r"^MLflow does not answer at URI .*; start it or unset") as caught:
        check_tracking(tmp_path)
    assert time.monotonic() - begun < 5
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metric_names() -> None:
    def name(**scope: str) -> str:
        return metric_name(Measurement(id="accuracy.group", scope=scope, value=1), ["no tank", "tank"])

    assert name() == "accuracy.group"
    assert name(to="tank", **{"from": "no tank"}) == "accuracy.group.from_0.to_1"
    assert name(group="a,b") != name(group="a;b")  # both become a_b
    assert len(name(group="é" * 300)) <= 250


def test_flattened() -> None:
    assert flattened({"a": {"b c": 1, "d": None}, "e": [{"f": True}, 2], "g": Path("h"), "i": ()}) == {
        "a.b_c-" + next(key for key in flattened({"a": {"b c": 1}}))[-6:]: "1",
        "a.d": "null",
        "e.0.f": "true",
        "e.1": "2",
        "g": '"h"',
        "i": "[]",
    }


def test_an_alias_moves_to_the_audited_version_on_a_pass_alone(
    audit: Audit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audit.subject("before", "blocked", accuracy=0.45)
    audit.subject("after", "passed", accuracy=0.55)
    made = audit.publish()
    policy = audit.root / "policy.yaml"
    policy.write_text("rules:\n  - {measurement: accuracy.overall, at_least: 0.5, on: estimate}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(audit.root))
    monkeypatch.chdir(Path(__file__).parents[2])
    given = ["--policy", str(policy), "--promote", "production"]
    assert run(["gate", str(audit.records["before"]), *given]) == 1
    assert "production" not in audit.client.get_registered_model("tiny").aliases
    assert run(["gate", str(audit.records["after"]), *given]) == 0
    assert f"models:/tiny/{made['versions']['after']} is tiny@production now" in capsys.readouterr().err
    assert str(audit.client.get_registered_model("tiny").aliases["production"]) == made["versions"]["after"]

    # And what has the alias is what the gate may be asked of.
    after = str(audit.records["after"])
    assert run(["gate", after, "--policy", str(policy), "--model", "models:/tiny@production"]) == 0
    version = made["versions"]["before"]
    assert run(["gate", after, "--policy", str(policy), "--model", f"models:/tiny/{version}"]) == 2
    assert "is not that of the model that tiny/after is about" in capsys.readouterr().err
    assert run(["gate", after, "--policy", str(policy), "--model", "models:/tiny@none"]) == 2

    other = read_record(audit.records["after"]).model_copy(update={"digests": {"model": "0" * 64}})
    with pytest.raises(ModelError, match="has no version of this model"):
        promote(other, "production", audit.root)
