"""docs/your-model.md, typed from top to bottom in a clone, by someone who has only that page."""

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

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "your-model.md"
TEN_MINUTES = 600


@dataclass(frozen=True)
class Block:
    """What the page has typed, and what it says comes of it: the last line of the block of text after."""

    command: str
    ends_with: str | None


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    read: list[Block] = []
    for language, content in found:
        if language == "sh":
            read.append(Block(content, None))
        else:
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
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    for name in ("candling", "flows", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "params").mkdir()
    # `candling` and `python` as the environment has them, on the sources of the clone.
    (tmp_path / "bin").mkdir()
    command = f'#!/bin/sh\nexec {sys.executable} -m candling "$@"\n'
    (tmp_path / "bin" / "candling").write_text(command)
    (tmp_path / "bin" / "candling").chmod(0o755)
    path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    # One thread, as other tests may run beside this one: torch waits long for cores that it does not get.
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

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
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=TEN_MINUTES,
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
    by_colour = records["shapes-by-colour"].measurements
    groups = {m.scope["group"]: m.value for m in by_colour if m.id == "accuracy.group"}
    assert groups["circle/red"] > 0.9, json.dumps(groups)
    assert groups["square/blue"] > 0.9
    assert groups["circle/blue"] < 0.3
    assert groups["square/red"] < 0.3
