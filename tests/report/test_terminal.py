"""Verdicts as text: whole at 80 columns, and harmless whatever things are called."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from candling.audit.gate import judge
from candling.audit.measurements import REGISTRY
from candling.audit.policy import Rule
from candling.audit.record import Measurement, StepError
from candling.report.terminal import clean, render_rules, render_verdict
from tests.audit.records import BAD, CRASH, FOLLOW, GOOD, NAN, record, unchecked

HOSTILE = "[bold red]x[/] [/nothing] \x1b[2J\x1b]0;title\x07 \r\n \u202e \x9b31m"


def test_a_blocked_record_says_each_rule_and_why() -> None:
    made = record(*BAD)
    assert render_verdict(made, judge(made), width=120) == (
        "rule                                        measured                   threshold      verdict\n"
        "accuracy.worst_group                        0.31 [0.29, 0.33] (n 120)  at least 0.85  failed\n"
        "background.follow_rate                      0.97 [0.95, 0.99] (n 120)  at most 0.2    failed\n"
        "object_evidence.shapley_share (class tank)  0.1 [0.08, 0.12] (n 120)   at least 0.5   failed\n"
        "failed: accuracy.worst_group is 0.31; at least 0.85 is required – no group is left behind\n"
        "failed: background.follow_rate is 0.97; at most 0.2 is allowed\n"
        "failed: object_evidence.shapley_share (class tank) is 0.1; at least 0.5 is required\n"
        "tanks/before: blocked by 3 of 3 rules: accuracy.worst_group, background.follow_rate, "
        "object_evidence.shapley_share (class tank)\n"
    )


def test_a_passed_record_is_short() -> None:
    made = record(*GOOD)
    lines = render_verdict(made, judge(made), width=120).splitlines()
    assert lines[-1] == "tanks/before: passed, 3 of 3 rules hold"
    assert len(lines) == 5


def test_errors_are_said_and_an_empty_record_has_no_table() -> None:
    made = record(errors=(CRASH,), rules=())
    assert render_verdict(made, judge(made)) == (
        "error in isolate features: out of memory\ntanks/before: incomplete, 1 error in isolate features\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_the_table_fits_80_columns_and_loses_nothing(terminal: bool) -> None:
    id = "prototype.probability_unseen_transforms"
    rule = Rule(
        measurement=id, scope={"class": "armoured recovery vehicle"}, at_least=0.123456, at_most=0.987654
    )
    found = Measurement(
        id=id, scope={"class": "armoured recovery vehicle"}, value=0.123, low=0.1, high=0.2, n=12345
    )
    made = record(found, rules=(rule, FOLLOW))
    text = re.sub(r"\x1b\[[0-9;]*m", "", render_verdict(made, judge(made), terminal=terminal, short=True))
    table = text.splitlines()[:-1]
    assert all(cell_len(line) <= 80 for line in table)
    assert "failed" in text
    assert "missing" in text
    assert "…" not in text
    # Folded cells put together again hold every letter.
    width = table[0].index("measured")
    assert "vehicle" in "".join(line[:width].strip() for line in table)


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_names_neither_style_nor_move_anything(terminal: bool) -> None:
    scope = {"class": HOSTILE}
    rule = Rule(measurement="accuracy.group", scope=scope, at_least=0.5, why=HOSTILE)
    found = Measurement(id="accuracy.group", scope=scope, value=0.1, low=0.0, high=0.2, n=100, note=HOSTILE)
    made = record(found, rules=(rule,), errors=(StepError(step=HOSTILE, message=HOSTILE),), subject=HOSTILE)
    text = render_verdict(made, judge(made), terminal=terminal, width=100)
    text = re.sub(r"\x1b\[[0-9;]*m", "", text) if terminal else text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[bold red]x[/] [/nothing]" in text
    assert r"\x1b[2J" in text


def test_only_a_terminal_gets_colour() -> None:
    made = record(*BAD)
    assert "\x1b[" in render_verdict(made, judge(made), terminal=True)
    assert "\x1b" not in render_verdict(made, judge(made))


def test_what_was_not_measured_is_a_dash() -> None:
    made = record(unchecked(value=NAN), *GOOD[1:])
    assert re.search(
        r"accuracy\.worst_group +– +at least 0\.85 +error", render_verdict(made, judge(made), width=120)
    )


def test_clean_spells_out_what_cannot_be_seen() -> None:
    assert clean("a\nb\x1b\x00\u200b\u2028\ud800é😀") == r"a\nb\x1b\x00\u200b\u2028\ud800é😀"


def test_the_registry_is_listed_whole() -> None:
    text = render_rules(list(REGISTRY.values()), width=140)
    assert all(re.search(rf"^{re.escape(id)} ", text, re.M) for id in REGISTRY)
    assert "0 to ∞" in text
    flat = " ".join(text.split())
    assert all(" ".join(kind.formula.split()) in flat for kind in REGISTRY.values())


def test_no_name_is_a_command_to_what_runs_the_job() -> None:
    name = "a" * 40 + " ::stop-commands::x ##[add-mask]passed"
    rule = Rule(measurement="accuracy.group", scope={"group": name}, at_least=0.5, why=name)
    made = record(rules=(rule,), errors=(StepError(step=name, message=name),))
    for width in (60, 120):
        text = render_verdict(made, judge(made), width=width)
        assert "::" not in text
        assert "##[" not in text
