"""The command line: exit codes, one line an error, and what a command says."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from candling.audit.record import AuditRecord, write_record
from candling.cli import main as main_module
from candling.cli.main import COMMANDS, guard, run
from candling.errors import ServiceError
from tests.audit.records import BAD, CRASH, GOOD, record

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    # monkeypatch puts back what --debug sets.
    monkeypatch.setenv("CANDLING_DEBUG", "0")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error is."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip()


GATE_CASES: dict[str, tuple[AuditRecord, int]] = {
    "passed": (record(*GOOD), 0),
    "blocked": (record(*BAD), 1),
    "errored": (record(*GOOD, errors=(CRASH,)), 2),
    "nothing measured": (record(), 3),
    "no rules": (record(*GOOD, rules=()), 3),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("case", GATE_CASES)
def test_gate_ends_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str, as_json: bool
) -> None:
    made, code = GATE_CASES[case]
    write_record(made, tmp_path)
    assert run(["gate", str(tmp_path), *(["--json"] if as_json else [])]) == code
    out, err = capsys.readouterr()
    assert err == ""
    if as_json:
        assert json.loads(out)["exit_code"] == code
    else:
        assert out.splitlines()[-1].startswith("tanks/before: ")


def test_gate_takes_another_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record(*BAD), tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules: [{measurement: accuracy.worst_group, at_least: 0.1}]\n")
    assert run(["gate", str(tmp_path), "--policy", str(policy)]) == 0
    capsys.readouterr()
    policy.write_text("rules:\n  - {measurement: accuracy.worst_grup, at_least: 0.1}\n")
    assert run(["gate", str(tmp_path), "--policy", str(policy)]) == 4
    assert error_of(capsys) == (
        f"{policy}:2: rules.0.measurement: 'accuracy.worst_grup' is not a registered measurement; "
        "did you mean 'accuracy.worst_group'?"
    )


def test_gate_without_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", str(tmp_path)]) == 3
    assert "no record.json here" in error_of(capsys)
    for subject in ("before", "after"):
        write_record(record(*GOOD), tmp_path / subject)
    assert run(["gate", str(tmp_path)]) == 3
    assert error_of(capsys) == f"{tmp_path}: holds several subjects (after, before); name the folder of one"


@pytest.mark.parametrize("spoil", ["truncated", "newer"])
def test_gate_on_a_record_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: str
) -> None:
    path = write_record(record(*GOOD), tmp_path)
    text = path.read_text()
    path.write_text(
        text[:200] if spoil == "truncated" else text.replace('"schema_version": 2', '"schema_version": 3')
    )
    assert run(["gate", str(tmp_path)]) == 2
    assert str(path) in error_of(capsys)


USAGE = {
    "unknown option": (["gate", "x", "--jsn"], "No such option: --jsn"),
    "missing argument": (["gate"], "Missing argument 'REPORT_FOLDER'"),
    "unknown command": (["gat"], "No such command 'gat'"),
    "extra argument": (["diff", "a", "b", "c"], "unexpected extra argument"),
    "unknown measurement": (
        ["rules", "acuracy"],
        "no measurement begins with 'acuracy'; the nearest is accuracy.",
    ),
    "out of range": (["predict", "m", "i", "--top", "0"], "'--top'"),
    "no number": (["predict", "m", "i", "--top", "few"], "'--top'"),
}


@pytest.mark.parametrize("case", USAGE)
def test_usage_errors_exit_4(capsys: pytest.CaptureFixture[str], case: str) -> None:
    arguments, words = USAGE[case]
    assert run(arguments) == 4
    assert words in error_of(capsys)


def test_bare_candling_shows_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 4
    assert "Usage: candling" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: candling" in out
    if not command:
        assert all(name in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("candling ")


def test_rules_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules"]) == 0
    assert "entanglement.strongest_pair" in capsys.readouterr().out
    assert run(["rules", "attack", "--json"]) == 0
    assert {one["id"].partition(".")[0] for one in json.loads(capsys.readouterr().out)} == {"attack"}
    assert run(["rules", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["accuracy.overall"]["high"] == 1.0
    assert rows["entanglement.strongest_pair"]["high"] is None


RAISED = {
    "ours": (ServiceError("MLflow is away"), 4, "MLflow is away"),
    "two lines and an escape": (ServiceError("a\nb \x1b[2J"), 4, r"a b \x1b[2J"),
    "full disk": (
        OSError(errno.ENOSPC, "No space left on device", "x/y"),
        4,
        "x/y: No space left on device; make room or give write access, and run again",
    ),
    "read-only": (
        OSError(errno.EROFS, "Read-only file system", "x/y"),
        4,
        "x/y: Read-only file system; make room or give write access, and run again",
    ),
    "another OSError": (
        OSError(errno.EIO, "I/O error"),
        2,
        "unexpected OSError: [Errno 5] I/O error; run again with --debug to see where",
    ),
    "a bug": (KeyError("x"), 2, "unexpected KeyError: 'x'; run again with --debug to see where"),
}


@pytest.mark.parametrize("case", RAISED)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    error, code, sentence = RAISED[case]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("candling.cli.gate.read_record", fail)
    assert run(["gate", "x"]) == code
    assert error_of(capsys) == sentence
    for arguments in (["--debug", "gate", "x"], ["gate", "x", "--debug"]):
        monkeypatch.setenv("CANDLING_DEBUG", "0")
        monkeypatch.setattr("sys.argv", ["candling", *arguments])
        with pytest.raises(SystemExit) as ended:
            main_module.main()
        assert ended.value.code == code
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("case", RAISED)
def test_scripts_end_as_commands_do(capsys: pytest.CaptureFixture[str], case: str) -> None:
    error, code, sentence = RAISED[case]

    def script() -> None:
        with guard():
            raise error

    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == code
    assert error_of(capsys) == sentence


def test_interrupted_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("candling.cli.gate.read_record", interrupt)
    assert run(["gate", "x"]) == 130


def candling(
    *arguments: str, cwd: Path = ROOT, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("CANDLING_DEBUG", None)
    command = [sys.executable, "-m", "candling", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_reader_that_leaves_does_not_change_the_verdict(tmp_path: Path) -> None:
    write_record(record(*GOOD), tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    done = candling("gate", str(tmp_path), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    write_record(record(*GOOD), tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    done = candling("gate", str(tmp_path), stdout=full)
    os.close(full)
    assert done.returncode == 4
    assert done.stderr == ("error: No space left on device; make room or give write access, and run again\n")


FLOW = """
from dataclasses import dataclass
from pathlib import Path

@dataclass
class Outcome:
    subjects: dict
    report: Path
    failed: bool
    gate_subject: str | None

def main(params, progress):
    progress.start("load model", "before", None)
    progress.finish("load model", "before", hit=True)
    text = params.read_text().strip()
    if text == "raise":
        raise RuntimeError("boom")
    here = Path(__file__).parents[1] / "reports"
    subjects = {name: here / name for name in ("before", "after")}
    gate = {"none": None, "stranger": "stranger"}.get(text, text if text in subjects else "after")
    return Outcome(subjects, here / "report.html", text == "failed", gate)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").touch()
    (tmp_path / "flows" / "audit.py").write_text(textwrap.dedent(FLOW))
    (tmp_path / "params" / "below").mkdir(parents=True)
    write_record(record(*BAD), tmp_path / "reports" / "before")
    write_record(record(*GOOD, subject="after"), tmp_path / "reports" / "after")
    return tmp_path


AUDITS = {
    # text of the params, options: exit code
    "whole, whatever the verdict": ("before", (), 0),
    "gate blocked": ("before", ("--gate",), 1),
    "gate passed": ("after", ("--gate",), 0),
    "a failed step": ("failed", (), 2),
    "no gate subject": ("none", ("--gate",), 4),
    "a gate subject without a record": ("stranger", ("--gate",), 3),
    "a bug": ("raise", (), 2),
}


@pytest.mark.parametrize("case", AUDITS)
def test_audit_runs_the_flow_of_the_repository_around_it(repository: Path, case: str) -> None:
    text, options, code = AUDITS[case]
    below = repository / "params" / "below"
    (below / "a.yaml").write_text(text)
    done = candling("audit", "a.yaml", *options, cwd=below)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[0] == "before: load model … store hit"
    if case == "a bug":
        assert done.stderr.splitlines()[1:] == [
            "error: unexpected RuntimeError: boom; run again with --debug to see where"
        ]
    else:
        lines = done.stdout.splitlines()
        assert "tanks/after: passed, 3 of 3 rules hold" in lines
        assert lines[-1] == f"report: {repository / 'reports' / 'report.html'}"


@pytest.mark.parametrize("case", [case for case in AUDITS if case != "a bug"])
def test_audit_as_json_has_the_verdicts_and_the_same_codes(repository: Path, case: str) -> None:
    text, options, code = AUDITS[case]
    (repository / "a.yaml").write_text(text)
    done = candling("audit", "a.yaml", "--json", *options, cwd=repository)
    assert done.returncode == code, done.stderr
    told = json.loads(done.stdout)
    assert {one["subject"]: one["status"] for one in told["subjects"]} == {
        "before": "blocked",
        "after": "passed",
    }
    assert told["report"] == str(repository / "reports" / "report.html")
    assert told["failed"] is (text == "failed")
    gated = json.loads(candling("gate", told["subjects"][0]["record"], "--json", cwd=repository).stdout)
    del gated["comparison"]
    assert gated.items() <= told["subjects"][0].items()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run([name, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_audit_outside_a_repository(tmp_path: Path) -> None:
    done = candling("audit", "a.yaml", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr == (
        f"error: {tmp_path}: no flows/audit.py here or above; run this inside an audit repository\n"
    )


def test_audit_without_its_extra(repository: Path) -> None:
    (repository / "flows" / "audit.py").write_text("import no_such_package\n")
    done = candling("audit", "a.yaml", cwd=repository)
    assert done.returncode == 4
    assert (
        done.stderr == "error: audit needs no_such_package; install it with `pip install 'candling[audit]'`\n"
    )
