"""What a tab offers: asked for as the shell's own script does, in a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from candling.audit.record import write_record
from candling.cli.main import COMMANDS
from tests.audit.records import GOOD, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name in ("tanks", "food"):
        (tmp_path / "params").mkdir(exist_ok=True)
        (tmp_path / "params" / f"{name}.yaml").touch()
    for subject in ("before", "after"):
        write_record(record(*GOOD, subject=subject), tmp_path / "reports" / "tanks" / subject)
    (tmp_path / "reports" / "empty" / "model").mkdir(parents=True)
    (tmp_path / "models" / "tanks" / "before").mkdir(parents=True)
    (tmp_path / "models" / "tanks" / "before" / "spec.json").touch()
    return tmp_path


def candling(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "candling", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def offered(typed: str, cwd: Path) -> list[str]:
    """The words for a line; a space at its end begins a new word."""
    words = typed.split(" ")
    done = candling(
        cwd=cwd, _CANDLING_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words) - 1)
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


OFFERED = {
    "candling pr": ["predict", "prototype"],
    "candling audit ": ["params/food.yaml", "params/tanks.yaml"],
    "candling plan params/t": ["params/tanks.yaml"],
    "candling gate ": ["reports/tanks/after", "reports/tanks/before"],
    "candling gate reports/tanks/after --baseline reports/tanks/b": ["reports/tanks/before"],
    "candling gate reports/tanks/after --format s": ["sarif", "summary"],
    "candling diff reports/tanks/before reports/tanks/a": ["reports/tanks/after"],
    "candling verify ": ["reports/tanks", "reports/tanks/after", "reports/tanks/before"],
    "candling trend --only background.f": ["background.follow_rate"],
    "candling init --ci ": ["github", "gitlab", "none"],
    "candling init --kind l": ["language"],
    "candling init --cl": ["--classes", "--class"],
    "candling inspect ": ["models/tanks/before"],
    "candling predict models/tanks/before --head b": ["binary"],
    "candling audit elsewhere/": [],
}


@pytest.mark.parametrize("typed", OFFERED)
def test_words_are_offered(repository: Path, typed: str) -> None:
    assert offered(typed, repository) == OFFERED[typed]


def test_all_commands_are_offered_and_nothing_slow_is_imported_for_it(repository: Path) -> None:
    assert offered("candling ", repository) == list(COMMANDS)
    code = (
        "import sys; from candling.cli.main import run\n"
        "try: run()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository, capture_output=True, text=True, timeout=60, check=False,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "_CANDLING_COMPLETE": "complete_bash",
            "COMP_WORDS": "candling ", "COMP_CWORD": "1",
        },
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert "candling.cli.init" in loaded
    assert loaded.isdisjoint({"torch", "prefect", "candling.data", "tasks"})


def test_nothing_is_offered_where_there_is_nothing(tmp_path: Path) -> None:
    for typed in ("candling audit ", "candling gate ", "candling inspect "):
        assert offered(typed, tmp_path) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_with_the_script_that_is_shown(repository: Path) -> None:
    shown = candling(
        "--show-completion", "bash", cwd=repository, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert shown.returncode == 0, shown.stderr
    (repository / "bin").mkdir()
    command = repository / "bin" / "candling"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m candling "$@"\n')
    command.chmod(0o755)
    script = (
        f"{shown.stdout}\nCOMP_WORDS=(candling gate '')\nCOMP_CWORD=2\n"
        "_candling_completion candling\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=repository, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["reports/tanks/after", "reports/tanks/before"], done.stderr


def test_it_installs_itself(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = candling("--install-completion", "bash", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    assert "_candling_completion" in (tmp_path / ".bash_completions" / "candling.sh").read_text()
    # Of an unknown shell 1 would be read as a verdict.
    assert candling("--show-completion", "tcsh", cwd=tmp_path, **env).returncode == 4
