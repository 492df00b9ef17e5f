"""The gate: each way not to know something, and what it is worth."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from datetime import date, timedelta

import pytest

from candling.audit.gate import Verdict, judge
from candling.audit.policy import Policy, Rule, Waiver
from candling.audit.record import Measurement
from tests.audit.records import ACCURACY, BAD, CRASH, FOLLOW, GOOD, NAN, SHARE, TANK, ok, record, unchecked

ID = "accuracy.worst_group"

# What is measured for `accuracy.worst_group >= 0.85`: (outcome and exit code under block, the same under
# warn beside a rule that passes, and a word of the message).
UNKNOWN: dict[str, tuple[tuple[Measurement, ...], str, int, str, int, str]] = {
    "missing": ((), "missing", 2, "warned", 0, "was not measured"),
    "another scope": ((ok(ID, 0.93, scope=TANK),), "missing", 2, "warned", 0, "was not measured"),
    "NaN": ((unchecked(value=NAN),), "error", 2, "error", 2, "not a finite number"),
    "infinite": ((unchecked(value=float("inf")),), "error", 2, "error", 2, "not a finite number"),
    "NaN interval": ((unchecked(low=NAN),), "error", 2, "error", 2, "not a finite number"),
    "no value": ((unchecked(value=None),), "inconclusive", 2, "warned", 0, "has no value"),
    "too few": ((ok(ID, 0.93, n=29),), "inconclusive", 2, "warned", 0, "n = 29; at least 30"),
    "none at all": ((ok(ID, 0.93, n=0),), "inconclusive", 2, "warned", 0, "n = 0"),
    "inconclusive": (
        (Measurement(id=ID, value=None, n=3, status="inconclusive", note="3 are too few"),),
        "inconclusive", 2, "warned", 0, "inconclusive: 3 are too few",
    ),
    "inconclusive, yet with a fine value": (
        (ok(ID, 0.99, status="inconclusive"),), "inconclusive", 2, "warned", 0, "inconclusive",
    ),
    "errored": (
        (Measurement(id=ID, value=None, status="error", note="no masks"),),
        "error", 2, "error", 2, "could not be measured: no masks",
    ),
    "errored, yet with a fine value": ((ok(ID, 1, 0, status="error"),), "error", 2, "error", 2, "its step"),
    "no interval": ((Measurement(id=ID, value=0.93, n=120),), "inconclusive", 2, "warned", 0, "no interval"),
    "half an interval": (
        (Measurement(id=ID, value=0.93, high=0.95, n=120),), "inconclusive", 2, "warned", 0, "no interval",
    ),
    "upside down": (
        (Measurement(id=ID, value=0.93, low=0.95, high=0.9, n=99),), "inconclusive", 2, "warned", 0, "upside",
    ),
    "twice": ((ok(ID, 0.93), ok(ID, 0.3)), "error", 2, "error", 2, "recorded 2 times"),
    "without n": ((ok(ID, 0.93, n=None),), "inconclusive", 2, "warned", 0, "does not say what n"),
    "broken": ((ok(ID, 0.31),), "failed", 1, "warned", 0, "is 0.31; at least 0.85 is required"),
    "broken at its low end": (
        (ok(ID, 0.86),), "failed", 1, "warned", 0, "is 0.86, its low end 0.84; at least 0.85 is required",
    ),
}  # fmt: skip


@pytest.mark.parametrize("severity", ["block", "warn"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_never_passes(case: str, severity: str) -> None:
    measurements, block_status, block_code, warn_status, warn_code, words = UNKNOWN[case]
    rule = ACCURACY.model_copy(update={"severity": severity})
    verdict = judge(record(*measurements, ok("background.follow_rate", 0.05), rules=(rule, FOLLOW)))
    outcome, other = verdict.outcomes
    assert (outcome.status, verdict.exit_code) == (
        (block_status, block_code) if severity == "block" else (warn_status, warn_code)
    )
    assert words in outcome.message
    assert other.status == "passed"
    if warn_status == "warned" and severity == "warn":
        assert "1 warning: accuracy.worst_group" in verdict.summary


@pytest.mark.parametrize("case", [case for case, row in UNKNOWN.items() if not case.startswith("broken")])
def test_warnings_alone_that_could_not_be_judged_are_no_pass(case: str) -> None:
    rule = ACCURACY.model_copy(update={"severity": "warn"})
    measurements = UNKNOWN[case][0] or (ok("accuracy.overall", 0.9),)
    assert judge(record(*measurements, rules=(rule,))).exit_code == 2


VERDICTS = {
    "passed": (record(*GOOD), "passed", 0, "tanks/before: passed, 3 of 3 rules hold"),
    "blocked": (
        record(*BAD), "blocked", 1,
        "tanks/before: blocked by 3 of 3 rules: accuracy.worst_group, background.follow_rate, "
        "object_evidence.shapley_share (class tank)",
    ),
    "errors outrank a pass": (
        record(*GOOD, errors=(CRASH,)), "incomplete", 2,
        "tanks/before: incomplete, 1 error in isolate features",
    ),
    "errors outrank a block": (
        record(*BAD, errors=(CRASH, CRASH)), "incomplete", 2,
        "tanks/before: incomplete, 2 errors in isolate features",
    ),
    "errors and nothing measured": (record(errors=(CRASH,)), "incomplete", 2, None),
    "no rules": (
        record(*GOOD, rules=()), "nothing", 3, "tanks/before: nothing was audited, the policy has no rules",
    ),
    "no measurements": (
        record(), "nothing", 3, "tanks/before: nothing was audited, the record holds no measurements",
    ),
    "missing outranks a block": (
        record(*BAD[:2]), "incomplete", 2,
        "tanks/before: incomplete, no measurement for 1 of 3 rules: "
        "object_evidence.shapley_share (class tank)",
    ),
    "a block outranks the inconclusive": (
        record(BAD[0], ok("background.follow_rate", 0.05, n=3), GOOD[2]), "blocked", 1,
        "tanks/before: blocked by 1 of 3 rules: accuracy.worst_group",
    ),
    "inconclusive": (
        record(GOOD[0], ok("background.follow_rate", 0.05, n=3), GOOD[2]), "incomplete", 2,
        "tanks/before: incomplete, 1 of 3 rules inconclusive: background.follow_rate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case: str) -> None:
    made, status, code, summary = VERDICTS[case]
    verdict = judge(made)
    assert (verdict.status, verdict.exit_code) == (status, code)
    assert len(verdict.outcomes) == len(made.policy.rules)
    assert summary is None or verdict.summary == summary


def test_blocked_rules_are_listed_in_an_errored_record() -> None:
    assert {outcome.status for outcome in judge(record(*BAD, errors=(CRASH,))).outcomes} == {"failed"}


BOUNDS = [
    # at_least, at_most, on, (value, low, high), passes
    (0.5, None, "interval", (0.6, 0.5, 0.7), True),
    (0.5, None, "interval", (0.6, 0.49, 0.7), False),
    (0.5, None, "estimate", (0.6, 0.49, 0.7), True),
    (0.5, None, "estimate", (0.6, None, None), True),
    (0.5, None, "estimate", (0.49, 0.4, 0.7), False),
    (None, 0.5, "interval", (0.4, 0.3, 0.5), True),
    (None, 0.5, "interval", (0.4, 0.3, 0.51), False),
    (None, 0.5, "interval", (0.4, None, 0.5), True),
    (None, 0.5, "estimate", (0.4, 0.3, 0.51), True),
    (0.2, 0.5, "interval", (0.4, 0.2, 0.5), True),
    (0.2, 0.5, "interval", (0.4, 0.1, 0.5), False),
    (0.2, 0.5, "interval", (0.4, 0.2, 0.6), False),
    # An interval that misses its own estimate does not save it.
    (0.5, None, "interval", (0.4, 0.5, 0.7), False),
    (None, 0.5, "interval", (0.6, 0.3, 0.5), False),
]


@pytest.mark.parametrize(("least", "most", "on", "numbers", "passes"), BOUNDS)
def test_the_conservative_end_decides(
    least: float | None, most: float | None, on: str, numbers: tuple[float, float, float], passes: bool
) -> None:
    rule = Rule.model_validate({"measurement": ID, "at_least": least, "at_most": most, "on": on})
    value, low, high = numbers
    found = Measurement(id=ID, value=value, low=low, high=high, n=100)
    assert judge(record(found, rules=(rule,))).exit_code == (0 if passes else 1)


def test_a_rule_may_ask_for_fewer_samples_than_its_policy() -> None:
    found = ok(ID, 0.93, n=8)
    rule = ACCURACY.model_copy(update={"min_n": 5})
    assert judge(record(found, rules=(ACCURACY,))).exit_code == 2
    assert judge(record(found, rules=(rule,))).exit_code == 0
    assert judge(record(found), Policy(rules=(ACCURACY,), min_n=8)).exit_code == 0


def test_another_policy_replaces_the_record_s() -> None:
    made = record(*BAD)
    assert judge(made, Policy(rules=(Rule(measurement=ID, at_most=0.5),))).exit_code == 0
    assert judge(made, Policy()).exit_code == 3


def test_a_verdict_is_frozen_and_plain_json() -> None:
    verdict = judge(record(unchecked(value=NAN), *GOOD[1:]))
    with pytest.raises(FrozenInstanceError):
        verdict.status = "passed"  # type: ignore[misc]
    plain = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert (plain["exit_code"], plain["outcomes"][0]["value"]) == (2, None)
    assert plain["outcomes"][2]["rule"]["scope"] == SHARE.scope


# -- Waivers ----------------------------------------------------------------------------------------

DAY = date(2026, 11, 26)


def waiver(id: str = ID, *, scope: dict[str, str] | None = None, days: int = 30) -> Waiver:
    return Waiver(
        id=id, scope=scope or {}, reason="known since May", owner="ann", expires=DAY + timedelta(days)
    )


def waived(*measurements: Measurement, waivers: tuple[Waiver, ...], rules: tuple[Rule, ...]) -> Verdict:
    made = record(*measurements, rules=rules)
    policy = made.policy.model_copy(update={"waivers": waivers})
    return judge(made, policy, day=DAY)


def test_a_waiver_lifts_what_is_broken_for_as_long_as_it_holds() -> None:
    for days in (0, 1, 90):
        verdict = waived(ok(ID, 0.3), waivers=(waiver(days=days),), rules=(ACCURACY,))
        assert (verdict.exit_code, verdict.outcomes[0].status) == (0, "waived")
        assert "1 waived: accuracy.worst_group" in verdict.summary
        assert "by ann: known since May" in verdict.outcomes[0].message
        assert [use.status for use in verdict.waivers] == ["active"]
    for days, words in ((-1, "expired on 2026-11-25"), (91, "would hold 91 days more; at most 90")):
        verdict = waived(ok(ID, 0.3), waivers=(waiver(days=days),), rules=(ACCURACY,))
        assert (verdict.exit_code, verdict.outcomes[0].status) == (1, "failed")
        assert f"its waiver by ann {words}" in verdict.outcomes[0].message
        assert [use.status for use in verdict.waivers] == ["void"]


def test_a_waiver_nobody_needs_says_so() -> None:
    others = (waiver(), waiver("background.follow_rate"), waiver(scope={"class": "tank"}))
    verdict = waived(ok(ID, 0.93), waivers=others, rules=(ACCURACY,))
    assert verdict.exit_code == 0
    assert [(use.status, use.message.rpartition(": ")[2]) for use in verdict.waivers] == [
        ("unused", "its rule is passed"),
        ("unused", "no rule is about that"),
        ("unused", "no rule is about that"),
    ]


@pytest.mark.parametrize("severity", ["block", "warn"])
@pytest.mark.parametrize("case", UNKNOWN)
def test_only_what_is_broken_or_weak_can_be_waived(case: str, severity: str) -> None:
    measurements, block_status, block_code, *_ = UNKNOWN[case]
    rule = ACCURACY.model_copy(update={"severity": severity})
    verdict = waived(
        *measurements, ok("background.follow_rate", 0.05), waivers=(waiver(),), rules=(rule, FOLLOW)
    )
    outcome = verdict.outcomes[0]
    if block_status in ("failed", "inconclusive"):
        assert (outcome.status, verdict.exit_code) == ("waived", 0)
    elif block_status == "error" or severity == "block":
        assert (outcome.status, verdict.exit_code) == (block_status, block_code)
    else:
        assert outcome.status == "warned"


def test_errors_are_never_waived() -> None:
    made = record(ok(ID, 0.3), rules=(ACCURACY,), errors=(CRASH,))
    policy = made.policy.model_copy(update={"waivers": (waiver(),)})
    assert judge(made, policy, day=DAY).exit_code == 2


def test_rules_that_could_not_be_judged_and_are_waived_are_no_pass() -> None:
    verdict = waived(ok(ID, 0.93, n=3), waivers=(waiver(),), rules=(ACCURACY,))
    assert (verdict.exit_code, verdict.status) == (2, "incomplete")


# -- Changes, and rules for each class --------------------------------------------------------------

CHANGE = Rule(measurement=ID, against="baseline", at_least=-0.05)
OVERALL = Rule(measurement="accuracy.overall", at_least=0.5)


@pytest.mark.parametrize(
    ("before", "now", "status", "code"),
    [
        (ok(ID, 0.90, 0.01), ok(ID, 0.90, 0.01), "passed", 0),
        (ok(ID, 0.90, 0.01), ok(ID, 0.80, 0.01), "failed", 1),
        (ok(ID, 0.90, 0.04), ok(ID, 0.90, 0.04), "failed", 1),  # its low end
        (ok(ID, 0.90, 0.01, n=3), ok(ID, 0.90, 0.01), "inconclusive", 2),
        (ok(ID, 0.90, 0.01), ok(ID, 0.90, 0.01, n=3), "inconclusive", 2),
        (ok(ID, 0.90, 0.01, status="error"), ok(ID, 0.90, 0.01), "error", 2),
        (ok(ID, 0.90, 0.01), ok(ID, 0.90, 0.01, status="error"), "error", 2),
        (None, ok(ID, 0.90, 0.01), "missing", 2),
        (ok(ID, 0.90, 0.01), None, "missing", 2),
        (unchecked(value=NAN), ok(ID, 0.90, 0.01), "error", 2),
    ],
)
def test_a_rule_on_a_change(
    before: Measurement | None, now: Measurement | None, status: str, code: int
) -> None:
    other = ok("background.follow_rate", 0.05)
    old, new = (record(other, *([] if one is None else [one]), rules=(CHANGE,)) for one in (before, now))
    verdict = judge(new, baseline=old)
    assert (verdict.outcomes[0].status, verdict.exit_code) == (status, code)
    assert verdict.outcomes[0].message.startswith("change of accuracy.worst_group")
    assert verdict.baseline == ("tanks", "before", "0" * 64)


def test_a_first_audit_says_that_it_has_no_baseline() -> None:
    made = record(*GOOD, rules=(CHANGE, FOLLOW))
    verdict = judge(made)
    assert (verdict.outcomes[0].status, verdict.exit_code) == ("missing", 2)
    assert "has no baseline; name one with --baseline" in verdict.outcomes[0].message
    verdict = judge(made, first=True)
    assert (verdict.outcomes[0].status, verdict.exit_code) == ("warned", 0)
    assert judge(record(*GOOD, rules=(CHANGE,)), first=True).exit_code == 2, "nothing was judged"


def test_a_rule_for_each_class_misses_none() -> None:
    rule = Rule(measurement="accuracy.class", scope={"class": "*"}, at_least=0.5)
    cat, dog, egg = (
        ok("accuracy.class", value, scope={"class": name})
        for value, name in ((0.9, "cat"), (0.8, "dog"), (0.3, "egg"))
    )
    made = record(cat, dog, egg, rules=(rule,), classes=("cat", "dog", "egg"))
    verdict = judge(made)
    assert [(o.rule.scope["class"], o.status, o.number) for o in verdict.outcomes] == [
        ("cat", "passed", 0), ("dog", "passed", 0), ("egg", "failed", 0),
    ]  # fmt: skip
    lacking = judge(record(cat, rules=(rule,), classes=("cat", "dog")))
    assert (lacking.exit_code, [o.status for o in lacking.outcomes]) == (2, ["passed", "missing"])
    assert judge(record(*GOOD, rules=(rule,))).outcomes[0].status == "missing"
    pairs = Rule(measurement="confusion.rate", scope={"from": "*", "to": "egg"}, at_most=0.5)
    rates = [
        ok("confusion.rate", v, scope={"from": a, "to": b})
        for v, a, b in ((0.1, "cat", "egg"), (0.9, "dog", "egg"), (0.9, "egg", "dog"))
    ]
    assert [o.status for o in judge(record(*rates, rules=(pairs,))).outcomes] == ["passed", "failed"]


def test_a_waiver_of_a_level_is_none_of_its_change() -> None:
    old = record(ok(ID, 0.80), rules=(CHANGE,))
    made = record(ok(ID, 0.20), ok("accuracy.overall", 0.9), rules=(ACCURACY, CHANGE, OVERALL))
    level = waiver()
    change = level.model_copy(update={"against": "baseline"})
    for waivers, statuses, code in (
        ((level,), ["waived", "failed", "passed"], 1),
        ((change,), ["failed", "waived", "passed"], 1),
        ((level, change), ["waived", "waived", "passed"], 0),
    ):
        policy = made.policy.model_copy(update={"waivers": waivers})
        verdict = judge(made, policy, day=DAY, baseline=old)
        assert ([o.status for o in verdict.outcomes], verdict.exit_code) == (statuses, code)
    both = Policy(rules=made.policy.rules, waivers=(level, change))
    assert [one.label for one in both.waivers] == [ID, f"change of {ID}"]


def test_what_a_baseline_measured_and_the_record_does_not_is_missing() -> None:
    rule = Rule(measurement="accuracy.group", scope={"group": "*"}, against="baseline", at_least=-0.1)
    groups = [ok("accuracy.group", 0.9, scope={"group": name}) for name in "ab"]
    old, new = record(*groups, rules=(rule,)), record(groups[0], rules=(rule,))
    assert [o.status for o in judge(new, baseline=old).outcomes] == ["passed", "missing"]
    corruption = Rule(
        measurement="robustness.accuracy", scope={"class": "*", "corruption": "*"}, at_least=0.5
    )
    one = ok("robustness.accuracy", 0.9, scope={"class": "a", "corruption": "blur"})
    found = judge(record(one, rules=(corruption,), classes=("a", "b")))
    assert [(o.rule.scope["class"], o.status) for o in found.outcomes] == [("a", "passed"), ("b", "missing")]


def test_an_estimate_beside_its_own_interval_is_no_narrow_one() -> None:
    ends = ({"low": 0.8, "high": 0.899}, {"low": 0.91, "high": 0.95})
    odd = [ok(ID, 0.90).model_copy(update=one) for one in ends]
    verdict = judge(record(odd[1], rules=(CHANGE,)), baseline=record(odd[0], rules=(CHANGE,)))
    assert verdict.exit_code == 1
