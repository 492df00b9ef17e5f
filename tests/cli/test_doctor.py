"""`candling doctor`: what is there, what is known to break, and what does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from candling.cli import doctor
from candling.cli.main import run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_device", lambda: iter(()))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[str]:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith("/health") else 404)
            self.end_headers()

        def log_message(self, *given: Any) -> None: ...

    made = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def told(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, tuple[str, str]]:
    assert run(["doctor", "--json"]) == code
    return {one["name"]: (one["state"], one["found"]) for one in json.loads(capsys.readouterr().out)}


def test_it_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["torch"][0] == "ok"
    assert found["MLflow"] == ("ok", "no server named: a database in the repository is used")
    assert found["Prefect"][0] == "ok"
    assert "run this inside an audit repository" in found["repository"][1]
    assert run(["doctor"]) == 0
    assert "MLflow" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "release", "words"),
    [
        ("fastapi", "0.151.0", "install 'fastapi<0.151'"),
        ("fastapi", "1.0", "install 'fastapi<0.151'"),
        ("fastapi", "0.138.9", "install 'fastapi>=0.139'"),
        ("torch", "2.13.0+cpu", "breaks torchvision"),
        ("fastapi", "0.150.2", ""),
        ("torch", "2.14.1", ""),
    ],
)
def test_releases_that_break_are_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, release: str, words: str
) -> None:
    good = {"fastapi": "0.140.0", "torch": "2.14.1"}
    monkeypatch.setattr(doctor, "_installed", lambda asked: {**good, name: release}.get(asked))
    found = told(capsys, 2 if words else 0)
    if words:
        assert found[name][0] == "bad"
        assert words in found[name][1]


def test_what_is_not_installed_says_how_it_would_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    assert told(capsys)["prefect"] == ("note", "not installed; `pip install 'candling[audit]'` adds it")


def test_services_that_are_named_must_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("PREFECT_API_URL", f"{server}/api")
    found = told(capsys)
    assert found["MLflow"][0] == found["Prefect"][0] == "ok"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1")
    state, words = told(capsys, 2)["MLflow"]
    assert state == "bad"
    assert "does not answer" in words
    assert "secret" not in words


def test_releases_are_compared_as_numbers() -> None:
    assert doctor.numbers("2.14.1+cpu") == (2, 14, 1)
    assert doctor.numbers("0.9") < doctor.numbers("0.139.0rc1")
    assert doctor.numbers("unknown") == ()
