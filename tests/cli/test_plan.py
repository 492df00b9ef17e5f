"""`candling plan`: what it prints and writes, and how errors end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from candling.cli.main import run

ROOT = Path(__file__).parents[2]

PARAMS = """\
name: small
model: model
data: {eval: {location: pictures}}
prototypes: {seeds: 1, steps: 2}
isolation: {images: 2}
"""

PLANNER = """
from types import SimpleNamespace as N
from candling.errors import DataError

def main(params, progress):
    progress.finish("load model", "model", hit=True)
    if params.read_text() == "bad":
        raise DataError("bad pictures")
    row = dict(subject="model", step="look\\x1b[2J", forward=12345, backward=0, pictures=7, seconds=600.0)
    done = row | dict(step="isolate", forward=0, pictures=0, seconds=0.0, stored=True)
    return N(
        audit="small", steps=[N(**row, stored=False), N(**done)], slots=2, seconds=615.0, forward=12345,
        backward=678, disk=N(store=2e6, report=3e5, tracking=0.0), notes={"data.eval": "7 pictures."},
        left_out={"slices": "There are no slices."}, to_dict=lambda: {"audit": "small"},
    )
"""


def candling(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "candling", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One with a planner that plans nothing."""
    for package in ("flows", "tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "flows" / "audit.py").touch()
    (tmp_path / "tasks" / "plan.py").write_text(textwrap.dedent(PLANNER))
    (tmp_path / "a.yaml").write_text("good")
    return tmp_path


def test_the_table_is_plain_when_piped(repository: Path) -> None:
    done = candling("plan", "a.yaml", "--json", "out/plan.json", cwd=repository)
    assert (done.returncode, done.stderr) == (0, "model: load model … store hit\n")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["subject", "step", "pictures", "forward", "forward+backward", "minutes"]
    assert lines[1] == ["model", r"look\x1b[2J", "7", "12,345", "–", "10.0"]
    assert lines[2] == ["model", "isolate", "–", "–", "–", "in", "the", "store"]
    assert lines[3] == ["all", "7", "12,345", "678", "10.2"]
    assert done.stdout.splitlines()[5:] == [
        "evaluations: 13,023 images through the model, 678 of them with gradients",
        "time: about 10.2 minutes on this machine, 2 steps at a time, if nothing else runs",
        "disk: about 2 MB (store 2 MB, report 0.3 MB, MLflow 0.0 MB)",
        "",
        "data.eval: 7 pictures.",
        "",
        "left out: slices: There are no slices.",
    ]
    assert json.loads((repository / "out" / "plan.json").read_text()) == {"audit": "small"}
    assert [path.name for path in (repository / "out").iterdir()] == ["plan.json"]


def test_json_on_stdout_is_alone_there(repository: Path) -> None:
    done = candling("plan", "a.yaml", "--json", "-", cwd=repository)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"audit": "small"})
    assert not (repository / "-").exists()


def older(repository: Path) -> None:
    (repository / "tasks" / "plan.py").unlink()


def without_extra(repository: Path) -> None:
    (repository / "tasks" / "plan.py").write_text("import no_such_package\n")


def bad_data(repository: Path) -> None:
    (repository / "a.yaml").write_text("bad")


def no_repository(repository: Path) -> None:
    (repository / "flows" / "audit.py").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (older, "plan.py: no such file; `candling plan` needs a newer audit repository"),
        (without_extra, "plan needs no_such_package; install it with `pip install 'candling[audit]'`"),
        (bad_data, "bad pictures"),
        (no_repository, "no flows/audit.py here or above; run this inside an audit repository"),
    ],
)
def test_errors_are_one_line_and_exit_4(repository: Path, spoil: object, words: str) -> None:
    assert callable(spoil)
    spoil(repository)
    done = candling("plan", "a.yaml", "--json", "plan.json", cwd=repository)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert done.stderr.rstrip().endswith(words)
    assert not (repository / "plan.json").exists()


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small audit that the real planner plans."""
    from candling.models import ModelSpec, build_model, save_model

    for row, name in enumerate(("cat", "cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(row).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{row}.png")
    spec = ModelSpec("residual_cnn", ("cat", "dog"), (16, 16), arguments={"widths": [3, 4]})
    save_model(build_model(spec), tmp_path / "model")
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tasks.plan.ROOT", tmp_path)
    # Not the calibration of people, which takes seconds.
    monkeypatch.setattr("tasks.plan.SECONDS", 0.0)
    return tmp_path


def test_a_real_plan(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(audit / "params.yaml"), "--json", str(audit / "plan.json")]) == 0
    out, err = capsys.readouterr()
    assert [line.partition(" … ")[0] for line in err.splitlines()] == [
        "model: load model",
        "model: calibrate",
    ]
    rows = [line.split() for line in out.partition("\n\n")[0].splitlines()[1:]]
    found = json.loads((audit / "plan.json").read_text())
    assert rows[1][:4] == ["eval", "import", "data", "3"]
    assert [row["step"].split()[0] for row in found["steps"]] == [row[1] for row in rows[:-1]]
    assert found["totals"]["forward"] == sum(row["forward"] for row in found["steps"]) > 0
    assert found["totals"]["backward"] == sum(row["backward"] for row in found["steps"]) > 0
    for name, sentence in found["left_out"].items():
        assert f"left out: {name}: {sentence}\n" in out
    assert {"object_evidence", "swaps", "groups"} <= found["left_out"].keys()
    assert not (audit / "reports").exists()


def test_bad_params_exit_4(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = audit / "params.yaml"
    file.write_text(PARAMS.replace("isolation", "isolaton"))
    assert run(["plan", str(file)]) == 4
    assert "did you mean" in capsys.readouterr().err
    file.write_text(PARAMS.replace("model: model", "model: nowhere"))
    assert run(["plan", str(file)]) == 4
    assert f"{audit / 'nowhere'}: no such model" in capsys.readouterr().err
    assert not (audit / ".candling").exists()
