"""What a stranger can get wrong: each ends in one clear sentence, the right code and nothing half-written.

And what must go right, with the real components: a second audit and a second `dvc repro` do nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from candling.audit.record import read_record
from candling.cli.main import run

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small.yaml")
BIN = Path(sys.executable).parent
SUBJECTS = ("before", "control", "after")


def command(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command of the environment, as a person types it in the repository."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        arguments,
        cwd=cwd,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=240,
    )


def succeed(*arguments: str, cwd: Path, **env: str) -> str:
    done = command(*arguments, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository with the pictures and the model of the small audit."""
    root = tmp_path_factory.mktemp("made")
    for name in ("candling", "flows", "tasks"):
        # Copied, as the flow asks where its own file really lies.
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params").mkdir()
    shutil.copy(SMALL, root / "params")
    for stage in ("tasks.draw_scenes", "tasks.retrain"):
        succeed("python", "-m", stage, "params/small.yaml", cwd=root)
    return root


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    """A copy of `made` to spoil."""
    root = tmp_path / "repository"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def edit(old: str, new: str) -> Callable[[Path], None]:
    """Replace one place in the params."""

    def spoil(root: Path) -> None:
        file = root / "params" / "small.yaml"
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))

    return spoil


def line_of(text: str) -> int:
    """The line of the params on which `text` stands."""
    return next(n for n, line in enumerate(SMALL.read_text().splitlines(), 1) if text in line)


def manifest(split: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        file = root / "data" / "small" / f"{split}.parquet"
        change(pd.read_parquet(file)).to_parquet(file, index=False)

    return spoil


def without_masks(column: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """An eval split whose masks `column` takes away, under a rule that needs them."""

    def spoil(root: Path) -> None:
        manifest("eval", column)(root)
        rule = "{measurement: background.follow_rate, at_most: 0.2}"
        edit("{measurement: accuracy.overall, at_least: 0.85}", rule)(root)

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def occupy(name: str) -> Callable[[Path], None]:
    """A file where the audit would make a folder: it stops root, whom no permission stops."""

    def spoil(root: Path) -> None:
        (root / name).write_text("in the way")

    return spoil


@dataclass(frozen=True)
class Case:
    """How a repository is spoiled, and all that the sentence must say."""

    spoil: Callable[[Path], None]
    says: tuple[str, ...]
    env: str = ""  # this variable names an address where nothing listens


CASES = {
    "unknown key": Case(
        edit("stride: 24", "stirde: 24"),
        (f"small.yaml:{line_of('stride')}: ", "isolation.stirde: unknown key", "did you mean 'stride'?"),
    ),
    "unknown section": Case(
        edit("counterfactuals:", "counterfactual:"),
        (f"small.yaml:{line_of('counterfactuals')}: ", "did you mean 'counterfactuals'?"),
    ),
    "wrong type": Case(
        edit("side: 48", "side: wide"), (f"small.yaml:{line_of('side: 48')}: isolation.side: ", '"wide"')
    ),
    "unknown measurement": Case(
        edit("accuracy.overall", "accuracy.overal"),
        (f"small.yaml:{line_of('accuracy.overall')}: ", "did you mean 'accuracy.overall'?"),
    ),
    "not YAML": Case(edit("seed: 0", "seed: ["), ("small.yaml:", "not YAML")),
    "no params": Case(remove("params/small.yaml"), ("small.yaml: no such file",)),
    "no split": Case(remove("data/small/eval.parquet"), ("eval.parquet: no such manifest", "dvc repro")),
    "empty split": Case(
        manifest("eval", lambda table: table.iloc[:0]), ("eval.parquet", "the split 'eval' is empty")
    ),
    "split to retrain on is empty": Case(
        manifest("diversified", lambda table: table.iloc[:0]), ("the split 'diversified' is empty",)
    ),
    "not Parquet": Case(
        lambda root: (root / "data/small/donors.parquet").write_text("no"),  # type: ignore[arg-type]
        ("donors.parquet", "not a readable Parquet file"),
    ),
    "no column of masks": Case(
        without_masks(lambda table: table.drop(columns="mask")),
        ("background.follow_rate needs masks", "'eval'"),
    ),
    "every mask is missing": Case(
        without_masks(lambda table: table.assign(mask=[None] * len(table))),
        ("background.follow_rate needs masks", "'eval'"),
    ),
    "no model": Case(remove("models/small/before"), ("models/small/before", "no such model", "dvc repro")),
    "no weights": Case(
        remove("models/small/before/model.safetensors"), ("models/small/before", "no model.safetensors")
    ),
    "no such layer": Case(
        edit("seed: 0", "seed: 0\nchannels: {layers: [stem, stages.6]}"),
        ("channels: layers: the model has no layer 'stages.6'", "the nearest", "'stages.0'"),
    ),
    "a layer named twice": Case(
        edit("seed: 0", "seed: 0\nchannels: {layers: [stem, stem]}"), ("layers: 'stem' is named twice",)
    ),
    "MLflow unreachable": Case(lambda root: None, ("MLflow does not answer at",), "MLFLOW_TRACKING_URI"),
    "Prefect unreachable": Case(lambda root: None, ("Prefect does not answer at",), "PREFECT_API_URL"),
    "reports cannot be written": Case(occupy("reports"), ("reports/small: cannot be written",)),
    "store cannot be written": Case(occupy(".candling"), (".candling: cannot be written",)),
}


def contents(root: Path) -> dict[str, int]:
    """Every file and folder, with sizes."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*")}


def assert_one_sentence(stderr: str, says: tuple[str, ...]) -> None:
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    assert all(said in line for said in says), line
    assert "Traceback" not in line


@pytest.mark.parametrize("name", CASES)
def test_is_told_and_leaves_nothing(
    name: str,
    repository: Path,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process, because what takes seconds is to import Prefect; the flow is told where it is."""
    import flows.audit

    case = CASES[name]
    case.spoil(repository)
    if case.env:
        monkeypatch.setenv(case.env, f"http://127.0.0.1:{free_port()}")
    monkeypatch.chdir(repository)
    monkeypatch.setattr("candling.cli.audit.find_repository", lambda start: ROOT)
    monkeypatch.setattr(flows.audit, "ROOT", repository)
    monkeypatch.setattr(flows.audit, "audit", lambda *_, **__: pytest.fail("the flow was started"))
    before = contents(repository)
    capfd.readouterr()
    code = run(["audit", "params/small.yaml"])
    out, err = capfd.readouterr()
    assert (code, out) == (4, ""), err
    assert_one_sentence(err, case.says)
    assert contents(repository) == before


def test_is_told_by_the_command_itself(repository: Path) -> None:
    edit("side: 48", "side: wide")(repository)
    before = contents(repository)
    done = command(
        "python", "-m", "candling", "audit", "params/small.yaml", cwd=repository, PYTHONDONTWRITEBYTECODE="1"
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert_one_sentence(done.stderr, CASES["wrong type"].says)
    assert contents(repository) == before


def test_the_stages_before_the_audit_say_one_sentence_too(repository: Path) -> None:
    edit("kind: donors", "kind: donor")(repository)
    for stage in ("tasks.draw_scenes", "tasks.retrain"):
        done = command("python", "-m", stage, "params/small.yaml", cwd=repository)
        assert (done.returncode, done.stdout) == (4, "")
        assert_one_sentence(
            done.stderr, (f"small.yaml:{line_of('kind: donors')}: scenes.splits.donors.kind: ", '"donor"')
        )


def half_written(root: Path) -> list[str]:
    """Whatever is left of a step, a record or a report that did not end."""
    return [name for name in contents(root) if re.search(r"\.part\b|/\.tmp-", name)]


@pytest.mark.slow
def test_a_model_that_returns_nan_leaves_an_errored_record(repository: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = repository / "models" / "small" / "before" / "model.safetensors"
    state = load_file(weights)
    state["head.bias"][0] = float("nan")
    save_file(state, weights)

    done = command("python", "-m", "candling", "audit", "params/small.yaml", cwd=repository)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert half_written(repository) == []
    for subject in SUBJECTS:
        folder = repository / "reports" / "small" / subject
        record = read_record(folder)
        assert record.measurements == ()
        gate = command("python", "-m", "candling", "gate", str(folder), cwd=repository)
        assert gate.returncode == 2, gate.stdout + gate.stderr
    first = read_record(repository / "reports" / "small" / "before").errors[0]
    assert first.step == "load model"
    assert first.message == "the model returned NaN or infinite logits for 2 of 2 images"
    (line,) = done.stderr.splitlines()
    assert line.endswith(first.message)


@pytest.mark.slow
def test_the_second_audit_computes_nothing(repository: Path) -> None:
    def audit() -> tuple[list[str], dict[str, bytes]]:
        done = command("python", "-m", "candling", "audit", "params/small.yaml", cwd=repository)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "report: " in done.stdout
        steps = [
            line for line in done.stderr.splitlines() if re.match(r"(before|control|after): .* … ", line)
        ]
        files = sorted((repository / "reports" / "small").rglob("*"))
        same = {str(f): f.read_bytes() for f in files if f.is_file() and f.name != "run.json"}
        return steps, same

    first, written = audit()
    second, again = audit()
    assert half_written(repository) == []
    # load, prototypes, entanglement, isolation, counterfactuals and groups thrice, and two retrainings.
    assert sum(" … done in " in line for line in first) >= 17, first
    assert len(second) >= 17
    assert all(line.endswith(" … store hit") for line in second), second
    assert again == written
    assert [name for name in written if name.endswith("record.json")]
    gate = command("python", "-m", "candling", "gate", "reports/small/before", cwd=repository)
    assert gate.returncode == 1, gate.stdout + gate.stderr
    assert "accuracy.overall" in gate.stdout


@pytest.mark.slow
def test_the_second_repro_does_nothing(repository: Path) -> None:
    """The first three stages of our own `dvc.yaml`, with its ignore files, for the small audit."""
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, repository)
    for name in ("data", "models"):  # made by the stages
        shutil.rmtree(repository / name)
    stages = (ROOT / "dvc.yaml").read_text().partition("\n  stories:\n")[0]
    (repository / "dvc.yaml").write_text(re.sub(r"(?<=/)tanks\b", "small", stages))
    env = {"DVC_NO_ANALYTICS": "1"} | {
        f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def dvc(*arguments: str) -> str:
        return succeed("dvc", *arguments, cwd=repository, **env)

    succeed("git", "init", "--quiet", cwd=repository)
    dvc("init", "--quiet")
    dvc("repro")
    lock = (repository / "dvc.lock").read_bytes()
    succeed("git", "add", "--all", cwd=repository)
    succeed("git", "commit", "--quiet", "--message", "audited", cwd=repository, **env)

    again = dvc("repro")
    assert again.count("didn't change, skipping") == 3, again
    assert "Running stage" not in again
    assert (repository / "dvc.lock").read_bytes() == lock
    assert "up to date" in dvc("status")

    shown = dvc("metrics", "show")
    assert all(f"{subject}.verdict" in shown for subject in SUBJECTS), shown
    assert "blocked" in shown
    groups = sorted(set(pd.read_parquet(repository / "data" / "small" / "eval.parquet")["group"]))
    assert len(groups) == 8
    for arguments in (("show",), ("diff", "HEAD")):
        folder = f"plots-{arguments[0]}"
        dvc("plots", *arguments, "--out", folder)
        page = (repository / folder / "index.html").read_text()
        assert all(group in page for group in groups), arguments
