"""What all tests share: no telemetry, no one else's servers, and real servers of our own on loopback."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

# Before anything imports Prefect or MLflow, which read these once. Subprocesses inherit them.
for _name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)
_home = tempfile.mkdtemp(prefix="candling-prefect-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_HOME": _home,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

BIN = Path(sys.executable).parent

Serve = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


def pytest_configure(config: pytest.Config) -> None:
    # MLflow's own mappers use a loader that SQLAlchemy 2.1 deprecates.
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy is deprecated")
    # foolbox imports a name that SciPy 2 will not have.
    config.addinivalue_line("filterwarnings", "ignore:Please import `gaussian_filter`:DeprecationWarning")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port on loopback that nothing listens on."""

    def find() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            return int(listener.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Run a command of the environment until the block ends; with `health`, wait until that answers."""
    import httpx

    @contextmanager
    def run(
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        health: str | None = None,
        timeout: float = 120,
    ) -> Iterator[subprocess.Popen[bytes]]:
        log = tmp_path_factory.mktemp("server") / "log.txt"
        with log.open("wb") as output:
            # A session of its own, because servers start children, which must end with them.
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                env={**os.environ, **(env or {})},
                cwd=cwd,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + timeout
            while health is not None:
                assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"{command} does not answer:\n{log.read_text()}"
                try:
                    if httpx.get(health, timeout=2).is_success:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            yield process
        except BaseException:
            print(log.read_text())  # pytest shows it with the failure
            raise
        finally:
            _end(process)

    return run


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        if sign == signal.SIGTERM:
            time.sleep(0.2)  # its children may need a moment more before the second signal


@pytest.fixture(scope="session")
def prefect_server(
    serve: Serve, free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """A real Prefect server: its API's `url`, the `env` for commands that talk to it, and `cli` itself."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    env = {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "PREFECT_API_URL": url}

    def cli(*arguments: str, cwd: Path) -> str:
        done = subprocess.run(
            [BIN / "prefect", "--no-prompt", *arguments],
            env={**os.environ, **env},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with serve(command, env=env, health=f"{url}/health"):
        yield SimpleNamespace(url=url, env=env, cli=cli)
