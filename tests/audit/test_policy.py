"""Policies: what a rule may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from candling.audit.policy import Policy, Rule, read_policy
from candling.errors import ParamsError

CASES = {
    "no bound": ("measurement: accuracy.overall", ":3: policy.rules.0: a rule needs at_least or at_most"),
    "unregistered": (
        "measurement: accuracy.overal\n      at_least: 0.5",
        ":3: policy.rules.0.measurement: 'accuracy.overal' is not a registered measurement; "
        "did you mean 'accuracy.overall'?",
    ),
    "unlike any": (
        "measurement: zzzz\n      at_least: 0.5",
        ":3: policy.rules.0.measurement: 'zzzz' is not a registered measurement; "
        "`candling rules` lists those that are",
    ),
    "range": (
        "measurement: accuracy.overall\n      at_least: 85",
        ":4: policy.rules.0.at_least: 85 is outside the range of accuracy.overall, 0 to 1",
    ),
    "contradiction": (
        "measurement: accuracy.overall\n      at_least: 0.9\n      at_most: 0.1",
        ":4: policy.rules.0.at_least: 0.9 is above at_most: 0.1",
    ),
    "NaN": (
        "measurement: accuracy.overall\n      at_least: .nan",
        ":4: policy.rules.0.at_least: should be a finite number, not NaN",
    ),
    "no sample": (
        "measurement: accuracy.overall\n      at_least: 0.5\n      min_n: 0",
        ":5: policy.rules.0.min_n: should be greater than or equal to 1, not 0",
    ),
    "unknown": (
        "measurement: accuracy.overall\n      atleast: 0.5",
        ":4: policy.rules.0.atleast: unknown key; did you mean 'at_least'?",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_rule_is_explained(tmp_path: Path, case: str) -> None:
    text, expected = CASES[case]
    file = tmp_path / "p.yaml"
    file.write_text(f"policy:\n  rules:\n    - {text}\n")
    with pytest.raises(ParamsError) as caught:
        read_policy(file)
    assert str(caught.value).removeprefix(str(file)) == expected


def test_a_policy_is_read_from_params_or_from_a_file_of_its_own(tmp_path: Path) -> None:
    params, own = tmp_path / "params.yaml", tmp_path / "policy.yaml"
    params.write_text(
        "name: x\npolicy:\n  rules: [{measurement: accuracy.overall, at_least: 0.5, on: estimate}]\n"
    )
    own.write_text("rules: [{measurement: accuracy.overall, at_least: 0.5, on: estimate}]\n")
    rule = Rule(measurement="accuracy.overall", at_least=0.5, on="estimate")
    assert read_policy(params) == read_policy(own) == Policy(rules=(rule,))


@pytest.mark.parametrize("text", ["", "name: x\n", "[]\n", "policy_: {}\n"])
def test_a_file_without_a_policy_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match=r":1: neither `policy:` nor `rules:` stands at the top"):
        read_policy(file)


def test_rules_are_frozen_and_say_themselves() -> None:
    rule = Rule(measurement="accuracy.overall", scope={"class": "tank"}, at_least=0.5, at_most=0.9)
    assert rule.threshold == "at least 0.5, at most 0.9"
    assert rule.label == "accuracy.overall (class tank)"
    with pytest.raises(ValidationError):
        rule.at_least = 0.1  # type: ignore[misc]
