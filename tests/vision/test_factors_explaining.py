"""A background is dismissed only where a factor of the whole picture does as much by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from candling.statistics import Estimate
from candling.vision.counterfactuals import Candidate, PlaceTest, Route
from candling.vision.counterfactuals import Tested as Suspicion
from candling.vision.factors import FactorTest, explained


def suspected(effect: float, kind: str = "background", status: str = "confirmed") -> Suspicion:
    region = torch.ones(4, 4, dtype=torch.bool)
    route = Route(effect, {"elsewhere": 0.0}, Estimate(effect, effect - 0.1, effect + 0.1, 60), 1.0)
    return Suspicion(
        f"{kind}-tank", "insight", "tank", "'tank' hangs on the background: figures.",
        Candidate(kind, 0, region, "the background", region / 16, 1.0, 1.0),
        PlaceTest(status, "", 60, transplant=route), {},
    )  # fmt: skip


def factor(excess: float, *, region: str = "whole", strongest: bool = True) -> FactorTest:
    return FactorTest(
        f"factor.warmth.{region}", "warmth", "tint", region, "confirmed", "", strongest=strongest,
        excess=Estimate(excess, excess - 0.1, excess + 0.1, 60),
    )  # fmt: skip


def test_a_tint_that_does_as_much_explains_the_background() -> None:
    (one,) = explained([suspected(0.95)], [factor(0.9)])
    assert (one.status, one.kind) == ("dismissed", "shortcut")
    assert "does not hang on" in one.statement
    assert "tint" in one.statement
    assert one.test.why in one.statement


@pytest.mark.parametrize(
    ("place", "factors"),
    [
        (suspected(1.0), [factor(0.4)]),
        (suspected(0.9), []),
        (suspected(0.9), [factor(0.9, strongest=False)]),
        (suspected(0.9), [factor(0.9, region="background")]),
        (suspected(0.9), [replace(factor(0.9), excess=None)]),
        (suspected(0.9, "border"), [factor(0.9)]),
        (suspected(0.05, status="dismissed"), [factor(0.9)]),
    ],
    ids=["weaker", "none", "not the strongest", "of a part", "no figure", "a border", "dismissed before"],
)
def test_what_no_factor_explains_stays(place: Suspicion, factors: list[FactorTest]) -> None:
    assert explained([place], factors) == [place]
