"""docs/your-model.md, typed from top to bottom in a clone by someone who has only that page; and its job."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from candling.audit.record import read_record
from tasks.params import ChannelParams, ModelParams, PrototypeParams, SourceParams
from tests.flows.runner import MAKEFILE, Runner, inputs_of, run_gitlab

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-model.md"
TEN_MINUTES = 600


@dataclass(frozen=True)
class Block:
    """What the page has typed, and what it says comes of it: the last line of the block of text after."""

    command: str
    ends_with: str | None


def shown() -> list[str]:
    """The files that the page shows."""
    return re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    read: list[Block] = []
    for language, content in found:
        if language == "sh":
            read.append(Block(content, None))
        elif language != "yaml":
            assert language == "text"
            read[-1] = Block(read[-1].command, content.strip().splitlines()[-1])
    return read


def test_the_page_names_every_key() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = (ModelParams, SourceParams, PrototypeParams, ChannelParams)
    for name in (name for section in sections for name in section.model_fields):
        assert f"| `{name}`" in text or f", `{name}` |" in text, name
    source = ModelParams.model_fields["source"].annotation
    formats = SourceParams.model_fields["format"].annotation
    for literal in (source, formats):
        for value in literal.__args__:  # type: ignore[union-attr]
            assert value == "auto" or f"\n| `{value}` |" in text, value


@pytest.mark.slow
@pytest.mark.timeout(TEN_MINUTES)
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("candling", "flows", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("action.yml", "ci/gitlab.yml", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "params").mkdir()
    (tmp_path / "Makefile").write_text(MAKEFILE)
    # `candling` and `python` as the environment has them, on the sources of the clone.
    (tmp_path / "bin").mkdir()
    command = f'#!/bin/sh\nexec {sys.executable} -m candling "$@"\n'
    (tmp_path / "bin" / "candling").write_text(command)
    (tmp_path / "bin" / "candling").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    # One thread, as other tests may run beside this one: torch waits long for cores that it does not get.
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env |= {
        f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for command in ("init", "add candling flows tasks action.yml ci Makefile .gitignore", "commit -m clone"):
        subprocess.run(["git", *command.split()], cwd=tmp_path, env=env, capture_output=True, check=True)

    install, *typed = blocks()
    # The environment is there: these tests run in it.
    assert install == Block("make .venv && . .venv/bin/activate\n", None)
    assert "\n.venv: $(STAMP)" in (ROOT / "Makefile").read_text()

    started = time.monotonic()
    said = []
    for block in typed:
        began = time.monotonic()
        # A block whose code is told ends with the telling; all others must go well line by line.
        strict = [] if block.ends_with else ["-e", "-o", "pipefail"]
        done = subprocess.run(
            ["bash", *strict, "-c", block.command],
            cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TEN_MINUTES,
        )  # fmt: skip
        assert done.returncode == 0, block.command + done.stdout + done.stderr
        assert block.ends_with is None or done.stdout.splitlines()[-1] == block.ends_with, done.stdout
        said.append(done.stdout)
        print(f"{time.monotonic() - began:6.1f} s  {block.command.splitlines()[0]}")  # shown with -s
    assert time.monotonic() - started < TEN_MINUTES

    assert [block.ends_with for block in typed if block.ends_with] == ["exit code 0", "exit code 1"]
    assert any("shufflenet_v2_x0_5" in text and "circle · square" in text for text in said)
    assert any("evaluations: " in text and "minutes on this machine" in text for text in said)
    records = {}
    for name in ("shapes", "shapes-by-colour"):
        report = tmp_path / "reports" / name
        records[name] = record = read_record(report / "model")
        assert record.errors == ()
        assert record.classes == ("circle", "square")
        assert (report / "report.html").stat().st_size > 10_000
        sections = {artifact.section for artifact in record.artifacts}
        assert sections == {"prototypes", "entanglement", "isolation", "suspicions", "attacks"}
        left_out = {note for note in record.notes if note.startswith("left_out.")}
        assert left_out >= {"left_out.object_evidence", "left_out.swaps"}
        ids = {m.id for m in record.measurements}
        assert ids >= {"accuracy.overall", "calibration.error", "confusion.rate", "robustness.mean"}
    assert "left_out.groups" in records["shapes"].notes
    (params,) = shown()
    assert (tmp_path / "params" / "shapes.yaml").read_text(encoding="utf-8") == params
    by_colour = records["shapes-by-colour"].measurements
    groups = {m.scope["group"]: m.value for m in by_colour if m.id == "accuracy.group"}
    assert groups["circle/red"] > 0.9, json.dumps(groups)
    assert groups["square/blue"] > 0.9
    assert groups["circle/blue"] < 0.3
    assert groups["square/red"] < 0.3

    # What was committed is all that a job has, but for the store, which the action restores.
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(tmp_path), str(checkout)], check=True)
    shutil.copytree(tmp_path / ".candling" / "store", checkout / ".candling" / "store")
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = inputs_of(checkout / ".github" / "workflows" / "candling.yml")
    job = Runner(checkout, tmp_path / "job", path=tmp_path / "bin", **given)
    assert job.run() == 0, job.printed
    assert job.outputs["gate"] == {"exit-code": "0", "verdict": "passed"}
    assert "shapes/model: passed" in job.file("step_summary").read_text()
    # The same job about the other audit blocks.
    shutil.copytree(tmp_path / "reports" / "shapes-by-colour", checkout / "reports" / "shapes-by-colour")
    given |= {"report": "reports/shapes-by-colour/model", "audit": "reuse"}
    job = Runner(checkout, tmp_path / "blocked", path=tmp_path / "bin", **given)
    assert job.run() == 1, job.printed
    # And on GitLab, with the pictures that bring it out.
    source = ["--model", "mine/weights.safetensors", "--architecture", "shufflenet_v2_x0_5"]
    shutil.copy(tmp_path / "mine" / "photos.csv", checkout / "mine")
    said = subprocess.run(
        ["candling", "init", "--name", "grouped", *source, "--data", "mine/photos.csv", "--ci", "gitlab"],
        cwd=checkout, env={**env, "PYTHONPATH": str(checkout)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    ended = run_gitlab(checkout, tmp_path / "bin")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    verdict = json.loads((checkout / ".candling" / "ci" / "verdict.json").read_text())
    assert (verdict["audit"], verdict["status"]) == ("grouped", "blocked")
