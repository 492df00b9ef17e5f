"""The composite action's own shell, run as GitHub would, on a small audit of tanks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.runner import ACTION, MAKEFILE, ROOT, Runner
from tests.report import readers

SMALL = Path(__file__).with_name("small.yaml")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("action")
    for name in ("candling", "flows", "tasks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params").mkdir()
    shutil.copy(SMALL, root / "params")
    (root / "Makefile").write_text(MAKEFILE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for stage in ("tasks.draw_scenes", "tasks.retrain"):
        subprocess.run(
            [sys.executable, "-m", stage, "params/small.yaml"], cwd=root, env={**os.environ, "PATH": path},
            check=True, capture_output=True, timeout=240,
        )  # fmt: skip
    return root


def test_no_input_is_text_of_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", ""), step["name"]
    assert ACTION["runs"]["steps"][-1]["run"] == 'exit "${CODE:-2}"'


@pytest.mark.slow
def test_it_audits_gates_and_ends_with_the_verdict(repository: Path, tmp_path: Path) -> None:
    given = {"params": "params/small.yaml", "report": "reports/small/after"}
    runner = Runner(repository, tmp_path / "first", **given)
    assert runner.run() == 1, runner.printed
    assert runner.outputs["gate"] == {"exit-code": "1", "verdict": "blocked"}
    ci = repository / ".candling" / "ci"
    for name, file in (("junit", "junit.xml"), ("sarif", "candling.sarif"), ("markdown", "comment.md")):
        assert not readers.lets_through(name, (ci / file).read_text())
    summary = runner.file("step_summary").read_text()
    assert "## small/after: blocked" in summary
    annotations = [line for line in runner.printed.splitlines() if line.startswith("::error ")]
    assert any("file=params/small.yaml" in line and "line=" in line for line in annotations)
    line = next(int(m[1]) for text in annotations if (m := re.search(r"line=(\d+)", text)))
    assert "accuracy.overall" in (repository / "params" / "small.yaml").read_text().splitlines()[line - 1]

    # The report again, under rules that hold, and the model that was audited.
    policy = repository / "policy.yaml"
    policy.write_text("rules:\n  - {measurement: accuracy.overall, at_most: 1.0}\n")
    again = Runner(
        repository, tmp_path / "again", **given, audit="reuse", policy="policy.yaml", **{"max-age": "1h"}
    )
    assert again.run() == 0, again.printed
    assert again.outputs["gate"] == {"exit-code": "0", "verdict": "passed"}

    # Another model than the audited one: no verdict, no pass, and why is told.
    other = Runner(
        repository,
        tmp_path / "other",
        **given,
        audit="reuse",
        policy="policy.yaml",
        model="models/small/before",
    )
    assert other.run() == 2
    assert other.outputs["gate"]["verdict"] == "no verdict, exit code 2"
    assert "is not that of the model" in other.file("step_summary").read_text()

    # A step before that fails: the old record is no verdict on what was not audited.
    broken = Runner(repository, tmp_path / "broken", **{**given, "params": "params/none.yaml"})
    assert broken.run() == 3
    assert not (repository / "reports" / "small" / "after" / "record.json").exists()

    # A record from before stands there, and the step before the gate does not come to its end.
    assert Runner(repository, tmp_path / "anew", **given).run() == 1
    for place, changes in (
        ("strange", {"audit": "perhaps"}),
        ("options", {"audit": "reuse", "report": "--help"}),
        ("file", {"report": "reports/small/after/record.json"}),
        ("none", {"params": "--help"}),
    ):
        other = Runner(repository, tmp_path / place, **{**given, "policy": "policy.yaml", **changes})
        assert other.run() >= 2, place
        assert other.outputs["gate"]["verdict"].startswith("no verdict"), place
        assert not (repository / ".candling" / "ci" / "comment.md").exists()


@pytest.mark.slow
def test_what_it_writes_is_json_that_scripts_read(repository: Path, tmp_path: Path) -> None:
    runner = Runner(repository, tmp_path / "json", params="params/small.yaml", report="reports/small/before")
    assert runner.run() == 1, runner.printed
    told = json.loads((repository / ".candling" / "ci" / "verdict.json").read_text())
    assert (told["subject"], told["exit_code"]) == ("before", 1)


GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in *--paginate*) cat "$COMMENTS" ;; *) exit "${REFUSED:-0}" ;; esac
"""
COMMENT = next(step for step in ACTION["runs"]["steps"] if step["name"] == "Comment")


@pytest.mark.parametrize(
    ("comments", "call"),
    [
        ("", "api --method POST repos/us/ours/issues/7/comments"),
        ("11\t<!-- candling:other/model -->\n", "api --method POST repos/us/ours/issues/7/comments"),
        (
            "11\tLooks good\n12\t<!-- candling:small/after -->\n13\t<!-- candling:small/after -->\n",
            "api --method PATCH repos/us/ours/issues/comments/12",
        ),
    ],
)
def test_its_comment_takes_the_place_of_the_one_before(comments: str, call: str, tmp_path: Path) -> None:
    folder = tmp_path / ".candling" / "ci"
    folder.mkdir(parents=True)
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "comments").write_text(comments)
    environment = {
        **os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"),
        "COMMENTS": str(tmp_path / "comments"), "REPOSITORY": "us/ours", "NUMBER": "7",
    }  # fmt: skip

    def comment() -> list[str]:
        subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", COMMENT["run"]],
            cwd=tmp_path, env=environment, check=True, timeout=30,
        )  # fmt: skip
        calls = tmp_path / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    assert comment() == []  # nothing was judged, and nothing is said
    (folder / "comment.md").write_text("<!-- candling:small/after -->\n## small/after: blocked\n")
    looked, said = comment()
    assert "--paginate repos/us/ours/issues/7/comments" in looked
    assert said == f"{call} -F body=@.candling/ci/comment.md --silent"
    # From a fork there is no right to comment: that is told, and is no verdict.
    environment["REFUSED"] = "1"
    assert len(comment()) == 4
