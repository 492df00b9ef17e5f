"""Every format says what the gate says, whatever happened, and whatever things are called."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from candling.audit.comparison import compare
from candling.audit.gate import Verdict, judge
from candling.audit.policy import Policy, PolicySource, Rule, Waiver
from candling.audit.record import AuditRecord, Finding, Measurement, StepError
from candling.cli.main import run
from candling.report.audited import Audited
from candling.report.formats import FORMATS
from candling.report.html import render as render_html
from candling.report.terminal import render_verdict
from tests.audit.records import ACCURACY, BAD, CRASH, FOLLOW, GOOD, SHARE, ok, record
from tests.audit.test_gate import UNKNOWN
from tests.report import readers

DAY = date(2026, 11, 26)
TIMEOUT = StepError(step="isolate features", message="took longer than 600 s and was ended")
SKIPPED = StepError(step="attack model", message="not run, because a step before it failed")


def audited(made: AuditRecord, **more: Any) -> Audited:
    return Audited(made, judge(made, day=DAY), **more)


# -- Fail closed: each way not to know, each severity, waived or not, in each format ------------------


def cases() -> dict[str, AuditRecord]:
    found: dict[str, AuditRecord] = {
        "passed": record(*GOOD),
        "blocked": record(*BAD),
        "no rules": record(*GOOD, rules=()),
        "no measurements": record(),
        "nothing at all": record(rules=()),
    }
    waiver = Waiver(
        id=ACCURACY.measurement, scope={}, reason="known", owner="ann", expires=DAY + timedelta(30)
    )
    expired = waiver.model_copy(update={"expires": DAY - timedelta(1)})
    for name, error in (("crashed", CRASH), ("timed out", TIMEOUT), ("skipped", SKIPPED)):
        for words, measurements in (("good", GOOD), ("bad", BAD), ("nothing", ())):
            found[f"{name} beside {words}"] = record(*measurements, errors=(error,))
            found[f"{name} beside {words}, waived"] = with_waivers(found[f"{name} beside {words}"], waiver)
    for way, (measurements, *_) in UNKNOWN.items():
        for severity in ("block", "warn"):
            for beside in ((), (FOLLOW,)):
                rule = ACCURACY.model_copy(update={"severity": severity})
                made = record(*measurements, GOOD[1], rules=(rule, *beside))
                key = f"{way}, {severity}, {'beside a pass' if beside else 'alone'}"
                found[key] = made
                found[f"{key}, waived"] = with_waivers(made, waiver)
                found[f"{key}, waiver expired"] = with_waivers(made, expired)
    return found


def with_waivers(made: AuditRecord, *waivers: Waiver) -> AuditRecord:
    return made.model_copy(update={"policy": Policy(rules=made.policy.rules, waivers=waivers)})


CASES = cases()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_no_format_lets_through_what_the_gate_does_not(case: str, name: str) -> None:
    one = audited(CASES[case])
    assert readers.lets_through(name, FORMATS[name](one)) == (one.verdict.exit_code == 0)


@pytest.mark.parametrize("case", CASES)
def test_only_what_is_judged_and_holds_or_is_answered_for_passes(case: str) -> None:
    """The table once more, told apart from the gate's own code."""
    made = CASES[case]
    code = audited(made).verdict.exit_code
    way = case.partition(",")[0]
    if case == "passed":
        wanted = {0}
    elif case in ("no rules", "no measurements", "nothing at all"):
        wanted = {3}
    elif case == "blocked":
        wanted = {1}
    elif " beside good" in way or " beside bad" in way or " beside nothing" in way:
        wanted = {2}
    else:
        status, warned = UNKNOWN[way][1], "warn" in case
        broken, weak = status == "failed", status == "inconclusive"
        held = case.endswith("waived") and (broken or weak)
        if status == "error":
            wanted = {2}
        elif held or warned:
            # Something must have been judged: the rule beside it, or the broken one itself.
            wanted = {0} if "beside" in case or broken else {2}
        else:
            wanted = {1} if broken else {2}
    assert {code} == wanted
    text = render_verdict(made, audited(made).verdict, width=200)
    assert text.splitlines()[-1].startswith("tanks/before: passed") == (code == 0)
    html = render_html([(made, Path("."), audited(made).verdict)], title="t")
    assert ('<article class="card is-passed">' in html) == (code == 0)


def test_junit_tells_failures_errors_and_what_was_skipped_apart() -> None:
    rules = (
        ACCURACY, FOLLOW, SHARE.model_copy(update={"severity": "warn"}),
        Rule(measurement="accuracy.overall", at_least=0.5),
    )  # fmt: skip
    made = record(GOOD[0], BAD[1], BAD[2], rules=rules, errors=(CRASH,))
    suite = readers.junit(FORMATS["junit"](audited(made)))
    kinds = {str(case.get("name")).partition(",")[0]: [child.tag for child in case] for case in suite}
    assert kinds == {
        "accuracy.worst_group": [],
        "background.follow_rate": ["failure"],
        "object_evidence.shapley_share (class tank)": ["skipped"],
        "accuracy.overall": ["error"],
        "isolate features failed": ["error"],
        "verdict": ["error"],
    }
    assert suite.get("name") == "tanks/before"


def test_sarif_points_at_the_line_of_the_rule() -> None:
    made = record(*BAD, errors=(CRASH,)).model_copy(
        update={"source": PolicySource(file="params/my tanks.yaml", lines=(12, 17, 20))}
    )
    results = readers.sarif(FORMATS["sarif"](audited(made)))["results"]
    found = [
        (one["ruleId"], place["artifactLocation"]["uri"], place["region"]["startLine"])
        for one in results
        for place in [one["locations"][0]["physicalLocation"]]
    ]
    assert found == [
        ("accuracy.worst_group", "params/my%20tanks.yaml", 12),
        ("background.follow_rate", "params/my%20tanks.yaml", 17),
        ("object_evidence.shapley_share", "params/my%20tanks.yaml", 20),
        ("step-error", "params/my%20tanks.yaml", 1),
    ]
    # Other figures are the same alert.
    again = readers.sarif(
        FORMATS["sarif"](audited(made.model_copy(update={"measurements": GOOD[:1] + BAD[1:]})))
    )
    prints = [
        {one["partialFingerprints"]["candling/v1"] for one in run} for run in (results, again["results"])
    ]
    assert prints[1] < prints[0]
    lines = [
        line
        for _, properties, _ in readers.github(FORMATS["github"](audited(made)))
        if (line := properties.get("line"))
    ]
    assert sorted(lines) == ["12", "17", "20"]


def test_waivers_are_told_in_every_format() -> None:
    waiver = Waiver(
        id=ACCURACY.measurement, scope={}, reason="sensor swap", owner="ann lee", expires=DAY + timedelta(30)
    )
    made = with_waivers(record(BAD[0], *GOOD[1:]), waiver)
    for name, emit in FORMATS.items():
        text = emit(audited(made))
        assert readers.lets_through(name, text), name
        for word in ("sensor swap", "ann lee", "2026-12-26"):
            assert word in text, (name, word)
    assert "sensor swap" in render_verdict(made, judge(made, day=DAY))
    assert "sensor swap" in render_html([(made, Path("."), judge(made, day=DAY))], title="t")


def test_a_baseline_is_told_or_its_absence() -> None:
    finding = Finding(
        id="shortcut.sky", kind="shortcut", status="confirmed", statement="It reads the sky.",
        test={"effect": 0.9, "interval": [0.8, 1.0]},
    )  # fmt: skip
    old = record(*BAD, findings=(finding,))
    new = record(
        *GOOD,
        findings=(
            finding.model_copy(
                update={"status": "dismissed", "test": {"effect": 0.0, "interval": [-0.1, 0.1]}}
            ),
        ),
    )
    plain = FORMATS["markdown"](audited(new))
    assert "No baseline" in plain
    told = FORMATS["markdown"](Audited(new, judge(new, baseline=old, day=DAY), compare(old, new)))
    assert "fixed: It reads the sky." in told
    assert "better: background.follow\\_rate" in told
    assert json.loads(FORMATS["json"](Audited(new, judge(new, baseline=old), compare(old, new))))["baseline"]


# -- Limits -----------------------------------------------------------------------------------------


def test_what_is_too_much_is_cut_and_counted() -> None:
    names = [f"class{i}" for i in range(400)]
    rules = tuple(
        Rule(measurement="accuracy.class", scope={"class": name}, at_least=0.5, why="w" * 300)
        for name in names
    )
    made = record(*(ok("accuracy.class", 0.1, scope={"class": name}) for name in names), rules=rules)
    one = audited(made, report="reports/tanks/report.html")
    lines = readers.github(FORMATS["github"](one))
    assert len([level for level, _, _ in lines if level == "error"]) == 10
    assert lines[-1][2] == "392 more in reports/tanks/report.html"
    comment = FORMATS["markdown"](one)
    assert len(comment) < 65_536
    assert "390 more rules in reports/tanks/report.html" in comment
    assert len(FORMATS["summary"](one).encode()) < 2**20
    assert len(readers.junit(FORMATS["junit"](one))) == 401


ACTING = "\x00\x1b\x07\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\ufeff\ud800\ufffe"
ALLOWED = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "code"}
TAGS = re.compile(r"<\s*/?\s*([a-zA-Z!][^\s>/]*)")

# -- Hostile names ----------------------------------------------------------------------------------

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" onmouseover=\"alert(1)\" x='",
    "template": "{{ 7*7 }}{% for x in y %}${7*7}",
    "markdown": "**b** [x](javascript:alert(1)) ![i](http://evil/i.png) `code` | cell | # head\n- list",
    "mention": "@octocat #123 https://evil.example www.evil.example GH-1",
    "comment": "--> <!-- candling:other -->",
    "ansi": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "command": "::set-output name=x::y\n::error::z%0A::stop-commands::q",
    "newline": "a\nb\r\nc\u2028d\u2029e\x85f",
    "long": "x" * 10_000,
    "right to left": "\u202eabc\u202c \u2066x\u2069 אבג",
    "nul": "a\x00b\x7f\ufffe\uffff",
    "path": "../../../../tmp/candling-owned",
    "surrogate": "a\ud800b\udfff",
    "yaml": "a: b\n---\n- *x\n!!python/object:os.system",
    "xml": "]]></testcase><testcase/>&amp;&#0;",
    "spaces": "\u00a0\u200b\ufeff x \u3000",
}  # fmt: skip


def hostile(name: str) -> AuditRecord:
    """A record in which everything that a user names is called so."""
    scope = {"class": name, name[:50] or "k": name}
    rules = (
        Rule(measurement="accuracy.class", scope=scope, at_least=0.5, why=name),
        Rule(measurement="accuracy.overall", at_least=0.5, severity="warn", why=name),
        Rule(measurement="accuracy.group", scope={"group": name}, at_most=0.5),
    )
    waiver = Waiver.model_construct(
        id="accuracy.group", scope={"group": name}, reason=name or "r", owner=name, expires=DAY
    )
    measurements = (
        ok("accuracy.class", 0.1, scope=scope), ok("accuracy.group", 0.9, scope={"group": name}),
        Measurement(id="accuracy.overall", value=None, status="inconclusive", note=name),
    )  # fmt: skip
    finding = Finding(
        id=f"shortcut.{name}", kind="shortcut", scope=scope, status="confirmed", statement=f"It reads {name}."
    )
    made = record(
        *measurements, rules=rules, audit=name, subject=name, title=name, classes=(name,),
        findings=(finding,), errors=(StepError(step=name, message=name),),
        notes={name: name, "left_out.x": name},
    )  # fmt: skip
    return made.model_copy(
        update={
            "policy": Policy.model_construct(rules=rules, min_n=30, waivers=(waiver,)),
            "source": PolicySource(file=name, lines=(3, 4, 5)),
            "digests": {"model": name, "data.eval": name, name: name},
        }
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", HOSTILE)
def test_no_name_breaks_a_format_or_acts_in_it(case: str, name: str) -> None:
    made = hostile(HOSTILE[case])
    old = made.model_copy(update={"findings": (), "errors": ()})
    one = Audited(made, judge(made, day=DAY), compare(old, made), report=HOSTILE[case])
    text = FORMATS[name](one)
    if name != "json":  # which writes all that is not ASCII as escapes
        assert not any(
            letter in text
            for letter in "\x00\x1b\x07\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200b\ufeff\ud800\ufffe"
        )
        text.encode("utf-8")
    assert not readers.lets_through(name, text)
    if name == "junit":
        assert len(readers.junit(text)) == 5
    if name in ("summary", "markdown", "model-card"):
        body = readers.front_matter(text)[1] if name == "model-card" else text
        if name != "model-card":
            first, _, body = body.partition("\n")
            assert first.startswith("<!-- candling:")
            assert first.count("<!--") == first.count("-->") == 1
        page = readers.markdown(body)
        tags = set(TAGS.findall(page))
        assert tags <= ALLOWED, tags - ALLOWED
        assert "<!--" not in page
        for acting in ("@octocat", "#123", "://e", "www.e"):
            assert acting not in page, acting


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_is_written_outside_of_where_it_belongs(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = hostile(HOSTILE[case])
    monkeypatch.setattr("candling.cli.gate.read_record", lambda _: made)
    monkeypatch.chdir(tmp_path)
    given = [word for name in FORMATS for word in ("--format", name, "--output", f"out/{name}")]
    assert run(["gate", "report", *given]) == 2
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "out", *sorted(f"out/{name}" for name in FORMATS)
    ]  # fmt: skip
    assert not Path("/tmp/candling-owned").exists()
    assert "\x1b[2J" not in capsys.readouterr().out


def test_verdicts_of_other_statuses_are_no_pass() -> None:
    """What a later gate may say and no emitter knows is an error in all of them."""
    made = record(*GOOD)
    verdict = judge(made, day=DAY)
    for status in ("incomplete", "nothing", "blocked"):
        odd = Verdict(verdict.audit, verdict.subject, status, verdict.outcomes, "odd")  # type: ignore[arg-type]
        for name, emit in FORMATS.items():
            assert not readers.lets_through(name, emit(Audited(made, odd))), (status, name)


def test_junit_escapes_what_is_no_character_of_xml() -> None:
    made = hostile("a\x00\x0b\ud800\ufffe")
    tree = ElementTree.fromstring(FORMATS["junit"](audited(made)).encode())
    assert "\\x00" in str(tree[0][0].get("name"))
