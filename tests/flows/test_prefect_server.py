"""The deployment of `prefect.yaml`, run by a real worker of a real Prefect server on loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.yaml")  # params of an audit that ends within a minute or two

# A flow with the layout and signature of the real one, which ends in seconds.
STAND_IN = {
    "flows/audit.py": """
from pathlib import Path
from prefect import flow
from tasks.look import look

@flow(name="audit")
def audit(params: str = "params/tanks.yaml") -> None:
    look.submit(Path(params)).result()
""",
    "tasks/look.py": """
from pathlib import Path
from prefect import task

@task(name="look")
def look(params: Path) -> None:
    Path("looked.txt").write_text(params.read_text())
""",
    "params/tanks.yaml": "name: tanks\n",
    "params/small.yaml": "name: small\n",
}


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A checkout with our `prefect.yaml` around the stand-in flow."""
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    for name, text in STAND_IN.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout of this repository, with the pictures and the model that the small params name."""
    if not SMALL.is_file():
        pytest.skip("tests/flows/small.yaml is not written yet")
    for name in ("candling", "flows", "tasks", "params"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", tmp_path)
    shutil.copy(SMALL, tmp_path / "params")
    for stage in ("tasks.draw_scenes", "tasks.retrain"):
        subprocess.run([sys.executable, "-m", stage, "params/small.yaml"], cwd=tmp_path, check=True)
    return tmp_path


def run_deployment(
    server: SimpleNamespace, serve: Any, checkout: Path, params: str, *, timeout: float
) -> tuple[str, list[dict[str, str]]]:
    """Deploy the checkout, trigger it with `params`, and let a worker run it.

    Returns the final state and the task runs, both as the API tells them.
    """
    if httpx.get(f"{server.url}/work_pools/candling").status_code == 404:
        server.cli("work-pool", "create", "candling", "--type", "process", cwd=checkout)
    server.cli("deploy", "--all", cwd=checkout)
    name = f"triggered-{uuid.uuid4().hex}"  # the nightly schedule has flow runs waiting, too
    server.cli(
        "deployment",
        "run",
        "audit/tanks",
        "--param",
        f"params={params}",
        "--flow-run-name",
        name,
        cwd=checkout,
    )
    worker = ["prefect", "worker", "start", "--pool", "candling", "--type", "process"]
    with httpx.Client(base_url=server.url) as api, serve(worker, env=server.env, cwd=checkout.parent):
        query = {"flow_runs": {"name": {"any_": [name]}}}
        (run,) = api.post("/flow_runs/filter", json=query).raise_for_status().json()
        deadline = time.monotonic() + timeout
        while True:
            run = api.get(f"/flow_runs/{run['id']}").raise_for_status().json()
            if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                break
            assert time.monotonic() < deadline, run["state"]
            time.sleep(0.5)
        query = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        # Task runs are told to the server as events, which arrive a moment later than the flow's end.
        while True:
            tasks = api.post("/task_runs/filter", json=query).raise_for_status().json()
            if tasks and all(task["state_type"] in ("COMPLETED", "FAILED") for task in tasks):
                break
            assert time.monotonic() < deadline, tasks
            time.sleep(0.5)
        # Inside the block, so that a failure shows the worker's log.
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
    return run["state_name"], tasks


@pytest.mark.slow
def test_deployed_triggered_and_run(prefect_server: SimpleNamespace, serve: Any, stand_in: Path) -> None:
    state, tasks = run_deployment(prefect_server, serve, stand_in, "params/small.yaml", timeout=120)
    assert state == "Completed"
    assert [task["name"].rpartition("-")[0] for task in tasks] == ["look"]
    assert (stand_in / "looked.txt").read_text() == "name: small\n"
    deployment = httpx.get(f"{prefect_server.url}/deployments/name/audit/tanks").json()
    assert deployment["parameters"] == {"params": "params/tanks.yaml"}
    (schedule,) = deployment["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * *", "UTC")


@pytest.mark.slow
def test_the_audit_itself(prefect_server: SimpleNamespace, serve: Any, repository: Path) -> None:
    _, tasks = run_deployment(prefect_server, serve, repository, "params/small.yaml", timeout=240)
    assert {"load model", "generate prototypes", "isolate features", "decide"} <= {
        task["name"].rpartition("-")[0] for task in tasks
    }
    assert list((repository / "reports").glob("*/*/record.json"))
