from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from candling.errors import ServiceError
from tasks.environment import environment, git_revision, processor_kind, run_facts, versions
from tasks.preflight import check_prefect, check_writable


@pytest.fixture
def health() -> Iterator[tuple[str, list[int]]]:
    """A server's address, and the status with which it answers every request."""
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api", status
        server.shutdown()
        thread.join()


def test_prefect_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    check_prefect()


def test_prefect_answers(health: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", health[0] + "/")
    check_prefect()
    health[1][0] = 503
    with pytest.raises(ServiceError, match="does not answer"):
        check_prefect()


@pytest.mark.parametrize("scheme", ["http", "nonsense"])
def test_prefect_refused(scheme: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    begun = time.monotonic()
    with pytest.raises(ServiceError, match=f"^Prefect does not answer at URI {url}; start it or unset"):
        check_prefect()
    assert time.monotonic() - begun < 5


def test_writable_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "reports" / "tanks")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/candling", "file/below", "file"])
def test_unwritable(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match=rf"{where}: cannot be written \(.+\); make the folder writable"):
        check_writable(tmp_path / where)


def test_environment_is_plain_and_repeats() -> None:
    found = environment()
    assert found == environment()
    assert set(found) == {
        "python", "torch", "torchvision", "numpy", "scipy", "pillow", "transformers", "timm", "onnxruntime",
        "candling", "processor", "device", "threads",
    }  # fmt: skip
    assert all(isinstance(value, str) and value for value in found.values())
    assert found["device"] == "cpu"
    assert processor_kind().startswith(found["processor"])
    assert versions()["python"].count(".") == 1


def test_run_facts_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    facts = run_facts(tmp_path)
    assert facts["git_revision"] is None
    assert facts["git_dirty"] is None
    monkeypatch.setenv("PATH", "")
    assert git_revision(tmp_path) is None


def test_run_facts_in_a_repository(tmp_path: Path) -> None:
    import subprocess

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=c", "-c", "user.email=c@localhost"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    facts = run_facts(tmp_path)
    assert len(str(facts["git_revision"])) == 40
    assert facts["git_dirty"] is False
    (tmp_path / "a").write_text("2")
    assert run_facts(tmp_path)["git_dirty"] is True
