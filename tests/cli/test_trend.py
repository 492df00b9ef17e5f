"""`candling trend`: what it prints and writes, and how it refuses."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from candling.audit.measurements import REGISTRY
from candling.audit.record import Measurement, write_record
from candling.audit.trend import Line, Point
from candling.cli.main import run
from candling.report.trend import sparkline
from tests.audit.records import ok, record

FOLLOW = "background.follow_rate"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDLING_DEBUG", "0")
    monkeypatch.setenv("COLUMNS", "120")


def pair(**scope: str) -> tuple[Measurement, Measurement]:
    return ok("entanglement.directed", 0.1, scope={"from": "a", "to": "b"}), ok(
        "accuracy.group", 0.5, scope=scope
    )


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """Ten checkpoints in which the follow rate jumps between step 40 and 50."""
    folder = tmp_path / "training"
    for step in range(0, 100, 10):
        made = record(
            ok(FOLLOW, 0.1 if step < 45 else 0.9), ok("accuracy.overall", 0.9), *pair(group="tank/<b>"),
            subject=f"step-{step}", coordinates={"step": step},
        )  # fmt: skip
        write_record(made, folder / f"step-{step}")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Twelve runs, the follow rate rises with `strength` and not with the learning rate."""
    folder = tmp_path / "runs"
    for i in range(12):
        coordinates = {"strength": i / 12, "learning_rate": 10.0 ** -(1 + i * 5 % 7)}
        made = record(ok(FOLLOW, 0.05 + 0.07 * i), subject=f"run-{i}", coordinates=coordinates)
        write_record(made, folder / f"run-{i}")
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert run(["trend", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def row(lines: list[str], id: str) -> str:
    return next(line for line in lines if line.startswith(id))


def test_a_series_in_a_table(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, training)
    assert lines[0] == "tanks: 10 records along step, step 0 to 90"
    follow = row(lines, FOLLOW)
    for part in ("0.1 → 0.9", "▁▁▁▁▁█████"[1:], "↑ rises, worse", "between step 40 and 50"):
        assert part.replace("█", "█") in follow.replace("▇", "█")
    assert "– flat" in row(lines, "accuracy.overall")
    assert any("accuracy.group (tank/<b>)" in line for line in lines)
    assert all(len(line) <= 120 for line in lines)
    assert not any("entanglement" in line for line in lines)


def test_all_and_only_choose_lines(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert any("entanglement.directed (from a, to b)" in line for line in told(capsys, training, "--all"))
    lines = told(capsys, training, "--only", FOLLOW, "--only", "accuracy.overall")
    assert {line.split()[0] for line in lines[2:]} == {FOLLOW, "accuracy.overall"}


def test_files_folders_and_globs_are_the_same(training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = sorted(training.iterdir())
    expected = told(capsys, training)
    assert told(capsys, *folders) == expected
    assert told(capsys, *(folder / "record.json" for folder in folders)) == expected


def test_numbers_in_names_count_as_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for release in (1, 2, 10):
        write_record(
            record(ok("accuracy.overall", 0.5 + release / 50), subject=f"v{release}"),
            tmp_path / f"v{release}",
        )
    assert told(capsys, tmp_path)[0] == "tanks: 3 records in the order given, v1 to v10"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_keep_to_the_width(
    training: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = told(capsys, training)
    assert max(map(len, lines)) <= width


def test_drivers_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, runs, "--by", "strength")
    assert "strength (ρ =" in " ".join(" ".join(lines).split())
    assert "learning_rate (" not in " ".join(lines)


def test_json_and_csv_hold_every_point(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, training, "--json", tmp_path / "a" / "t.json", "--csv", tmp_path / "t.csv", "--only", FOLLOW)
    data = json.loads((tmp_path / "a" / "t.json").read_text())
    line = next(line for line in data["lines"] if line["id"] == FOLLOW)
    assert [(c["direction"], c["before"], c["after"]) for c in line["changes"]] == [("rises", 40.0, 50.0)]
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [(r["subject"], float(r["x"]), float(r["value"])) for r in rows] == [
        (p["subject"], p["x"], p["value"]) for p in line["points"]
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "t.csv", "training"]


def test_json_on_stdout_is_alone_there(
    training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["trend", str(training), "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    told(capsys, training, "--json", "t.json")
    assert printed == json.loads(Path("t.json").read_text())
    assert not Path("-").exists()


@pytest.mark.parametrize("kind", ["training", "runs"])
def test_the_page_stands_alone_and_plots_every_point(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = request.getfixturevalue(kind), tmp_path / "trend.html"
    told(capsys, folder, "--html", file, *(["--by", "strength"] if kind == "runs" else []))
    page = file.read_text(encoding="utf-8")
    for outside in ("http://", "https://", "src=", "@import", "url(h"):
        assert outside not in page
    assert "<b>" not in page.replace("<b>between", "").replace("<b>rises", "")
    plots = [
        ElementTree.fromstring(f"<svg {part.split('</svg>')[0]}</svg>") for part in page.split("<svg ")[2:]
    ]
    assert len(plots) == (3 if kind == "training" else 1)
    for plot in plots:
        dots = plot.findall("circle")
        assert len(dots) == (10 if kind == "training" else 12)
        for dot in dots:
            assert 0 <= float(dot.get("cx", "nan")) <= 360
            assert 0 <= float(dot.get("cy", "nan")) <= 190
    follow = next(plot for plot in plots if "follow" in (plot.get("aria-label") or ""))
    xs = [float(dot.get("cx", "nan")) for dot in follow.findall("circle")]
    assert xs == sorted(xs)
    if kind == "training":
        (mark,) = follow.findall("rect")
        left = float(mark.get("x", "nan"))
        assert left == pytest.approx(xs[4])
        assert left + float(mark.get("width", "nan")) == pytest.approx(xs[5], abs=0.11)
    else:
        assert "What drives what" in page
    again = tmp_path / "again.html"
    told(capsys, folder, "--html", again, *(["--by", "strength"] if kind == "runs" else []))
    assert again.read_bytes() == file.read_bytes()


PROBLEMS = {
    "one record": (["{training}/step-0"], 4, "at least two records"),
    "no record": (["{training}/.."], 3, "no record.json here nor one level below"),
    "not there": (["{training}/step-5"], 3, "no record.json here"),
    "two audits": (["{training}", "{other}"], 4, "of audit 'tanks' and record 11 (v1) of 'boats'"),
    "twice": (["{training}", "{training}/step-0"], 4, "are both at step 0"),
    "no such coordinate": (["{training}", "--by", "lr"], 4, "'lr' is a coordinate of no record"),
    "no such measurement": (
        ["{training}", "--only", "background.folow_rate"], 4, "did you mean 'background.follow_rate'?",
    ),
    "nothing simple": (["{training}", "--only", "entanglement.directed"], 3, "--all shows the rest"),
    "unreadable": (["{training}", "{broken}"], 2, "not a readable record"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROBLEMS)
def test_errors_are_one_sentence_and_write_nothing(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    other, broken = tmp_path / "x" / "other", tmp_path / "x" / "broken"
    write_record(record(ok("accuracy.overall", 0.5), audit="boats", subject="v1"), other)
    broken.mkdir()
    (broken / "record.json").write_text("{")
    if case == "no record":
        other, training = tmp_path / "x" / "deep", training
        arguments, code, words = [str(tmp_path / "empty")], 3, PROBLEMS[case][2]
        (tmp_path / "empty" / "a" / "b").mkdir(parents=True)
    else:
        given, code, words = PROBLEMS[case]
        arguments = [a.format(training=training, other=other, broken=broken) for a in given]
    html = tmp_path / "t.html"
    assert run(["trend", *arguments, "--html", str(html)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not html.exists()


def line(id: str, values: list[float | None]) -> Line:
    points = tuple(Point(float(i), "", v, None, None, None, "ok") for i, v in enumerate(values))
    return Line(id, {}, points, "flat", None, (), ())


@pytest.mark.parametrize(
    ("id", "values", "drawn"),
    [
        ("accuracy.overall", [0.0, 0.5, 1.0], "▁▅█"),
        # On the measurement's own range, noise stays flat.
        ("accuracy.overall", [0.90, 0.91, 0.90], "███"),
        ("accuracy.overall", [0.0, None, 1.0], "▁·█"),
        ("entanglement.strongest_pair", [-2.0, 0.0, 2.0], "▁▅█"),
        ("entanglement.strongest_pair", [3.0, 3.0], "▅▅"),
        ("accuracy.overall", [0.0] * 50 + [1.0] * 50, "▁" * 12 + "█" * 12),
    ],
)
def test_sparklines(id: str, values: list[float | None], drawn: str) -> None:
    assert id in REGISTRY
    assert sparkline(line(id, values)) == drawn
