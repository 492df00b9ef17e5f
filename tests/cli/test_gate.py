"""`candling gate`, `diff` and `verify`: bound to the bytes that were audited, and what ends them."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from candling.audit.policy import Rule
from candling.audit.record import Artifact, AuditRecord, Finding, write_record
from candling.cli.main import run
from candling.digests import folder_digest
from tests.audit.records import ACCURACY, BAD, GOOD, ok, record
from tests.report import readers

ID = ACCURACY.measurement


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def write(folder: Path, *measurements: Any, began: timedelta = timedelta(0), **more: Any) -> AuditRecord:
    made = record(*measurements, **more)
    write_record(made, folder)
    told = {
        "started": (datetime.now(UTC) - began).isoformat(),
        "record": hashlib.sha256((folder / "record.json").read_bytes()).hexdigest(),
    }
    (folder / "run.json").write_text(json.dumps(told))
    return made


# -- The model --------------------------------------------------------------------------------------


def test_another_model_than_the_audited_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = tmp_path / "model", tmp_path / "other"
    for folder, weights in ((model, b"right"), (other, b"wrong")):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
    made = record(*GOOD)
    weights = hashlib.sha256(b"weights as they came").hexdigest()
    digests = {"model": folder_digest(model), "model.weights": weights}
    write_record(made.model_copy(update={"digests": digests}), tmp_path / "report")
    (tmp_path / "weights.pt").write_bytes(b"weights as they came")
    for right in ("model", "weights.pt"):
        assert run(["gate", str(tmp_path / "report"), "--model", str(tmp_path / right)]) == 0
        assert "passed" in capsys.readouterr().out
    (tmp_path / "weights.pt").write_bytes(b"others")
    for wrong in ("other", "weights.pt"):
        given = ["gate", str(tmp_path / "report"), "--model", str(tmp_path / wrong), "--format", "junit"]
        assert run([*given, "--output", str(tmp_path / "junit.xml")]) == 2
        assert "is not that of the model that tanks/before is about" in error_of(capsys)
        assert not (tmp_path / "junit.xml").exists()
    assert run(["gate", str(tmp_path / "report"), "--model", str(tmp_path / "nowhere")]) == 2
    assert "no model can be read there" in error_of(capsys)
    write_record(made.model_copy(update={"digests": {}}), tmp_path / "report")
    assert run(["gate", str(tmp_path / "report"), "--model", str(model)]) == 2
    assert "does not say which model was audited" in error_of(capsys)


# -- Age --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "most", "code", "words"),
    [
        (timedelta(hours=1), "2h", 0, ""),
        (timedelta(hours=3), "2h", 2, "began 3.0 hours ago, more than the 2.0 hours of --max-age"),
        (timedelta(days=8), "7d", 2, "8.0 days ago"),
        (timedelta(minutes=50), "60m", 0, ""),
        (timedelta(days=-3), "7d", 2, "in the future"),
        (timedelta(0), "soon", 4, "write minutes, hours or days"),
        (timedelta(0), "0d", 4, "write minutes, hours or days"),
    ],
)
def test_a_stale_audit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], age: timedelta, most: str, code: int, words: str
) -> None:
    write(tmp_path, *GOOD, began=age)
    assert run(["gate", str(tmp_path), "--max-age", most]) == code
    if code:
        assert words in error_of(capsys)


@pytest.mark.parametrize("content", ["", "{}", '{"started": 3}', "[]", '{"started": "2026-01-01T00:00:00"}'])
def test_an_audit_without_its_time_is_stale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    write(tmp_path, *GOOD)
    (tmp_path / "run.json").write_text(content)
    assert run(["gate", str(tmp_path), "--max-age", "7d"]) == 2
    assert "does not say when the audit began" in error_of(capsys)


# -- Formats and files ------------------------------------------------------------------------------


def test_formats_are_written_and_the_verdict_is_still_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "report", *BAD)
    files = {"junit": tmp_path / "out" / "junit.xml", "sarif": tmp_path / "out" / "candling.sarif"}
    given = [word for name, file in files.items() for word in ("--format", name, "--output", str(file))]
    assert run(["gate", str(tmp_path / "report"), *given]) == 1
    assert "blocked by 3 of 3 rules" in capsys.readouterr().out
    for name, file in files.items():
        assert not readers.lets_through(name, file.read_text())
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["candling.sarif", "junit.xml"]
    assert run(["gate", str(tmp_path / "report"), "--format", "github"]) == 1
    assert readers.github(capsys.readouterr().out)[0][0] == "error"
    assert run(["gate", str(tmp_path / "report"), *given, "--format", "markdown"]) == 1
    assert capsys.readouterr().out.startswith("<!-- candling:tanks/before -->")


USAGE = {
    "unknown format": (["--format", "pdf"], "--format 'pdf' is not known; there are terminal, html, json"),
    "two to print": (["--format", "junit", "--format", "sarif"], "only one --format can be printed"),
    "nowhere to go": (["--output", "x"], "each --output FILE needs its own --format"),
    "one file for two": (
        ["--format", "junit", "--output", "x", "--format", "sarif", "--output", "x"], "two formats",
    ),
    "a folder": (["--format", "junit", "--output", "."], "--output .: is a folder, and a file is wanted"),
    "json twice": (["--json", "--format", "junit"], "--json prints the verdict"),
    "first and baseline": (["--first", "--baseline", "x"], "--first says that there is no baseline"),
}  # fmt: skip


@pytest.mark.parametrize("case", USAGE)
def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    given, words = USAGE[case]
    write(tmp_path, *GOOD)
    assert run(["gate", str(tmp_path), *given]) == 4
    assert words in error_of(capsys)


def test_a_place_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "report", *GOOD)
    out = tmp_path / "out"
    out.mkdir()
    (out / "junit.xml").write_text("of before")
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if b"sarif-2.1.0" in data:
            raise OSError(28, "No space left on device", str(path))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    given = ["--format", "junit", "--output", str(out / "junit.xml"), "--format", "sarif"]
    assert run(["gate", str(tmp_path / "report"), *given, "--output", str(out / "x.sarif")]) == 4
    assert "No space left on device" in error_of(capsys)
    assert [file.name for file in out.iterdir()] == ["junit.xml"]
    assert (out / "junit.xml").read_text() == "of before"


# -- Policies and waivers ---------------------------------------------------------------------------


POLICY = """rules:
  - {measurement: accuracy.worst_group, at_least: 0.85}
waivers:
  - {id: accuracy.worst_group, scope: {}, reason: known, owner: ann, expires: DAY}
"""


def day(days: int) -> str:
    return (datetime.now(UTC).date() + timedelta(days)).isoformat()


@pytest.mark.parametrize(
    ("days", "code", "words"),
    [
        (90, 0, "1 waived"),
        (-1, 1, "its waiver by ann expired on"),
        (91, 4, ":4: the waiver of accuracy.worst_group would hold 91 days more; at most 90 are allowed"),
    ],
)
def test_waivers_of_a_policy_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, code: int, words: str
) -> None:
    write(tmp_path / "report", *BAD)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("DAY", day(days)))
    assert run(["gate", str(tmp_path / "report"), "--policy", str(policy)]) == code
    assert words in "".join(capsys.readouterr())


BROKEN = {
    "no owner": ("owner: ann, ", "", ":4: waivers.0.owner: this key is missing"),
    "blank owner": ("owner: ann", 'owner: " "', ":4: waivers.0.owner: "),
    "no scope": ("scope: {}, ", "", ":4: waivers.0.scope: this key is missing"),
    "no day": ("expires: DAY", "expires: soon", ":4: waivers.0.expires: "),
    "unknown": ("id: accuracy.worst", "id: accuracy.wurst", "did you mean 'accuracy.worst_group'?"),
    "against what": ("at_least: 0.85", "at_least: 0.85, against: last", ":2: rules.0.against: "),
    "range": ("at_least: 0.85", "at_least: 1.85", ":2: rules.0.at_least: 1.85 is outside the range"),
    "range of a change": (
        "at_least: 0.85", "at_least: -1.5, against: baseline",
        "-1.5 is outside the range of a change of accuracy.worst_group, -1 to 1",
    ),
    "twice": ("rules:\n", "rules: []\nrules:\n", ":2: rules: duplicate key, first on line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_policy_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    old, new, words = BROKEN[case]
    write(tmp_path / "report", *GOOD)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace(old, new).replace("DAY", day(30)))
    assert run(["gate", str(tmp_path / "report"), "--policy", str(policy)]) == 4
    assert words in error_of(capsys)


def test_results_of_another_policy_point_into_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "report", *BAD)
    (tmp_path / "mine.yaml").write_text("\n\n" + POLICY.replace("DAY", day(-3)))
    assert run(["gate", "report", "--policy", "mine.yaml", "--format", "sarif"]) == 1
    (result,) = readers.sarif(capsys.readouterr().out)["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("mine.yaml", 4)


# -- Baselines and differences ----------------------------------------------------------------------


def shortcut(status: Any) -> Finding:
    ends = [0.8, 1.0] if status == "confirmed" else [-0.1, 0.1]
    test = {"effect": sum(ends) / 2, "interval": ends}
    return Finding(id="shortcut.sky", kind="shortcut", status=status, statement="The sky.", test=test)


def test_a_change_is_held_to_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = (Rule(measurement=ID, against="baseline", at_least=-0.1),)
    write(tmp_path / "old", ok(ID, 0.93), rules=rules)
    write(tmp_path / "new", ok(ID, 0.70), rules=rules)
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    assert run(["gate", new]) == 2
    assert "no baseline; name one with --baseline" in capsys.readouterr().out
    assert run(["gate", new, "--baseline", old]) == 1
    assert "change of accuracy.worst_group is -0.23" in capsys.readouterr().out
    assert run(["gate", new, "--baseline", new]) == 0
    assert "since the baseline: tanks/before → tanks/before" in capsys.readouterr().out
    write_record(record(ok(ID, 0.93), rules=rules, classes=("cat",)), tmp_path / "old")
    assert run(["gate", new, "--baseline", old]) == 4
    assert "cannot be compared, classes: 1 only in the old (cat)" in error_of(capsys)
    assert run(["gate", new, "--baseline", str(tmp_path / "nowhere")]) == 3
    assert "no record.json here" in error_of(capsys)


def test_the_page_of_a_change_is_judged_against_what_it_is_beside(tmp_path: Path) -> None:
    rule = Rule(measurement=ID, at_least=-0.05, against="baseline")
    write_record(record(ok(ID, 0.93), rules=(rule,)), tmp_path / "old")
    write_record(record(ok(ID, 0.7), rules=(rule,)), tmp_path / "new")
    page = tmp_path / "diff.html"
    assert run(["diff", str(tmp_path / "old"), str(tmp_path / "new"), "--output", str(page)]) == 0
    cards = re.findall(r'<article class="card is-(\w+)">', page.read_text(encoding="utf-8"))
    assert cards[1] == "blocked"


def test_diff_names_what_was_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "old", *BAD, findings=(shortcut("confirmed"),), subject="before")
    write(tmp_path / "new", *GOOD, findings=(shortcut("dismissed"),), subject="after")
    given = ["diff", str(tmp_path / "old"), str(tmp_path / "new")]
    assert run(given) == 0
    out = capsys.readouterr().out
    assert "shortcut.sky" in out
    assert "fixed" in out
    assert out.endswith(
        "tanks/before → tanks/after: findings 0 new, 1 fixed, 0 worse, 0 better; measurements 3 better\n"
    )
    assert run([*given, "--output", str(tmp_path / "diff.html")]) == 0
    assert capsys.readouterr().out == out
    page = (tmp_path / "diff.html").read_text(encoding="utf-8")
    assert "What changed from tanks/before to tanks/after" in page
    assert re.search(r">fixed</span>.*?<code>shortcut.sky</code>", page)
    assert page.count('<article class="card') == 2
    assert run([*given, "--output", str(tmp_path)]) == 4
    assert "is a folder, and a file is wanted" in error_of(capsys)
    assert run([*given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["status"]) for one in told["findings"]] == [("shortcut.sky", "fixed")]
    assert {one["status"] for one in told["measurements"]} == {"better"}
    write(tmp_path / "new", *GOOD, classes=("cat",))
    assert run(given) == 4
    assert "or say --force" in error_of(capsys)
    assert run([*given, "--force"]) == 0
    assert "not the same: classes: 1 only in the new (cat)" in capsys.readouterr().out


# -- Verify -----------------------------------------------------------------------------------------


def test_verify_finds_what_is_not_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "reports" / "before"
    picture = b"a picture"
    artifact = Artifact(
        path="pictures/a.png", sha256=hashlib.sha256(picture).hexdigest(), section="prototypes"
    )
    write(folder, *GOOD, artifacts=(artifact,))
    file = folder / "pictures" / "a.png"
    file.parent.mkdir()
    file.write_bytes(picture)
    for place in (folder, folder.parent):
        assert run(["verify", str(place)]) == 0
        assert ": as audited" in capsys.readouterr().out
    file.write_bytes(b"another")
    assert run(["verify", str(folder.parent)]) == 2
    assert "pictures/a.png changed since the audit" in capsys.readouterr().out
    file.unlink()
    assert run(["verify", str(folder)]) == 2
    assert "pictures/a.png missing" in capsys.readouterr().out
    file.write_bytes(picture)
    whole = (folder / "record.json").read_text()
    (folder / "record.json").write_text(whole.replace('"value": 0.93', '"value":  0.93'))
    assert run(["verify", str(folder)]) == 2
    assert "record.json was edited" in capsys.readouterr().out
    # Written anew in the right form, and as one of the first schema.
    for old, new in (('"value": 0.93', '"value": 0.99'), ('"schema_version": 2', '"schema_version": 1')):
        (folder / "record.json").write_text(whole.replace(old, new))
        assert run(["verify", str(folder)]) == 2
        assert "run.json has another digest of it" in capsys.readouterr().out
    (folder / "record.json").unlink()
    write(folder.parent / "after", *GOOD)
    assert run(["verify", str(folder.parent)]) == 2
    assert "before: not as audited" in capsys.readouterr().out
    assert run(["verify", str(folder.parent), "--json"]) == 2
    told = {Path(one["folder"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert (told["before"]["as_audited"], told["before"]["problems"]) == (False, ["record.json missing"])
    assert (told["after"]["as_audited"], told["after"]["problems"]) == (True, [])
    assert told["after"]["record_digest_known"]
    (folder.parent / "after" / "run.json").unlink()
    assert run(["verify", str(folder.parent / "after")]) == 0
    assert "whether it was edited cannot be told" in capsys.readouterr().out
    assert run(["verify", str(tmp_path / "nowhere")]) == 3
    assert "no record.json here" in error_of(capsys)
