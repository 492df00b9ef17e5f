"""What `mlflow ui` shows of a published audit, over the API that its pages are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from candling.audit.record import AuditRecord, Measurement, write_record
from tasks.tracking import check_tracking, publish


def _publish(root: Path) -> dict[str, Any]:
    """A passed audit of one subject, with nothing of a model in it but its bytes."""
    model, folder = root / "model", root / "reports" / "tiny" / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "spec.json").write_text("{}")
    accuracy = Measurement(id="accuracy.overall", value=0.9, low=0.8, high=1.0, n=50)
    record = AuditRecord(
        audit="tiny", subject="model", kind="vision", digests={}, measurements=(accuracy,), environment={}
    )
    write_record(record, folder)
    report = folder.with_name("report.html")
    report.write_text("<html>a report</html>")
    return publish(
        "tiny", {"model": folder}, {"model": "passed"}, {"model": model}, report, {"seed": 1}, {}, root=root
    )


@pytest.mark.slow
@pytest.mark.parametrize("through", ["database", "server"])
def test_run_artifacts_and_registry_are_shown(
    through: str, tmp_path: Path, serve: Any, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`through`: published into the embedded database before, or through the running server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if through == "database":
        found = _publish(tmp_path)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    database = f"sqlite:///{tmp_path}/mlflow.db"
    command = ["mlflow", "ui", "--backend-store-uri", database, "--port", str(port), "--workers", "1"]
    with serve(command, cwd=tmp_path, health=f"{url}/health"), httpx.Client(base_url=url) as api:
        if through == "server":
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
            check_tracking(tmp_path)
            found = _publish(tmp_path)

        def get(path: str, **query: str) -> Any:
            return api.get(f"/api/2.0/mlflow/{path}", params=query).raise_for_status().json()

        experiment = get("experiments/get-by-name", experiment_name="candling/tiny")["experiment"]
        assert experiment["experiment_id"] == found["experiment"]

        run = get("runs/get", run_id=found["runs"]["model"])["run"]
        assert run["info"]["status"] == "FINISHED"
        assert [(m["key"], m["value"]) for m in run["data"]["metrics"]] == [("accuracy.overall", 0.9)]
        assert {tag["key"]: tag["value"] for tag in run["data"]["tags"]}["candling.verdict"] == "passed"

        files = get("artifacts/list", run_id=found["runs"]["model"])["files"]
        assert {file["path"] for file in files} == {"model", "record.json", "tables"}
        shown = api.get("/get-artifact", params={"run_id": found["run"], "path": "report.html"})
        assert shown.text == "<html>a report</html>"

        version = get("registered-models/alias", name="tiny", alias="approved")["model_version"]
        assert version["version"] == found["approved"]
        assert version["run_id"] == found["runs"]["model"]
        assert api.get("/").status_code == 200
