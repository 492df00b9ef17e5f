"""A factor explains a background only where it does as much, a place a factor that acts through it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from candling.statistics import Estimate
from candling.vision.counterfactuals import Candidate, PlaceTest, Route
from candling.vision.counterfactuals import Tested as Suspicion
from candling.vision.factors import FactorTest, dose_response, explained, most_outside, through_places


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
    assert (one.status, one.kind, one.explained_by) == ("confirmed", "shortcut", "factor.warmth.whole")
    assert one.statement.endswith("It counts by its tint, which moves predictions as much by itself.")
    assert one.details()["explained_by"] == "factor.warmth.whole"


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
        (suspected(0.9), [replace(factor(0.9), kind="insight")]),
    ],
    ids=[
        "weaker",
        "none",
        "not the strongest",
        "of a part",
        "no figure",
        "a border",
        "dismissed before",
        "of the object alone",
    ],
)
def test_what_no_factor_explains_stays(place: Suspicion, factors: list[FactorTest]) -> None:
    assert explained([place], factors) == [place]


# --- through places ----------------------------------------------------------------------------

COUNT, SIDE = 80, 24
CORNER = torch.zeros(SIDE, SIDE, dtype=torch.bool)
CORNER[:8, :8] = True


class LightOf(nn.Module):
    """Two classes by the light within a region."""

    def __init__(self, region: Tensor, middle: float) -> None:
        super().__init__()
        self.region, self.middle, self.seen = region, middle, 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        evidence = 20 * (images[:, :, self.region].mean((1, 2)) - self.middle)
        return torch.stack([-evidence, evidence], 1)


def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    even = torch.rand(COUNT, 3, 1, 1, generator=generator)
    return (0.2 + 0.4 * even + 0.2 * torch.rand(COUNT, 3, SIDE, SIDE, generator=generator)).clamp(0, 1)


def corner(status: str = "confirmed") -> Suspicion:
    one = suspected(0.9, "place", status)
    words = "the top left corner, 11% of the picture"
    return replace(one, id="place-tank", candidate=replace(one.candidate, region=CORNER, words=words))


def reading(region: Tensor) -> tuple[LightOf, Tensor, list[FactorTest]]:
    images = pictures()
    model = LightOf(region, float(images[:, :, region].mean((1, 2)).median()))
    factors = dose_response(model, images, names=["brightness", "hue"])
    assert [test.factor for test in factors if test.strongest] == ["brightness"]
    return model, images, factors


def test_light_that_is_read_in_a_corner_acts_through_the_corner() -> None:
    model, images, factors = reading(CORNER)
    model.seen = 0
    found = {test.factor: test for test in through_places(model, images, [corner()], factors)}
    assert model.seen <= most_outside(COUNT, 1)
    assert found["brightness"].explained_by == "place-tank"
    assert not found["brightness"].strongest
    assert found["brightness"].status == "confirmed"
    # Its edge is feathered, so that a little light gets in.
    told = re.search(
        r"acts through the top left corner: outside it, it moves (\d+)%\.$", found["brightness"].statement
    )
    assert told is not None
    assert int(told[1]) < 20
    assert found["hue"] == next(test for test in factors if test.factor == "hue")


def test_of_several_places_the_one_is_named_that_it_acts_through() -> None:
    low = CORNER.flip(0, 1)
    model, images, factors = reading(low)
    strong, weak = corner(), replace(corner(), id="place-other")
    route = Route(0.6, {"elsewhere": 0.0}, Estimate(0.6, 0.5, 0.7, 60), 1.0)
    words = "the bottom right corner, 11% of the picture"
    weak = replace(
        weak, candidate=replace(weak.candidate, region=low, words=words),
        test=replace(weak.test, transplant=route),
    )  # fmt: skip
    model.seen = 0
    found = {test.factor: test for test in through_places(model, images, [strong, weak], factors)}
    assert model.seen <= most_outside(COUNT, 2)
    assert found["brightness"].explained_by == "place-other"
    assert "acts through the bottom right corner" in found["brightness"].statement


@pytest.mark.parametrize("everywhere", [True, False], ids=["read everywhere", "the place was dismissed"])
def test_light_that_is_read_everywhere_or_where_no_place_is_confirmed_stands_alone(everywhere: bool) -> None:
    model, images, factors = reading(torch.ones_like(CORNER) if everywhere else CORNER)
    place = corner("confirmed" if everywhere else "dismissed")
    assert through_places(model, images, [place], factors) == factors
