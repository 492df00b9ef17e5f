"""Suspicions tested on models that read one thing by construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from built_models import (
    CENTRE,
    CORNER,
    SIDE,
    Matches,
    Reads,
    border,
    evidence,
    glyph,
    region,
    smooth,
    stamped,
)
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from candling.errors import DataError, ModelError, ParamsError
from candling.models import logits
from candling.vision.counterfactuals import Settings, most_evaluations, predicts_in_groups, suspect
from candling.vision.counterfactuals import Tested as Told  # pytest takes what begins with Test for tests

QUICK = Settings(pictures=50, resamples=800)


def suspected(model: nn.Module, images: Tensor, where: Tensor, **options: Any) -> list[Told]:
    """What is found with maps that point to `where` for the predicted class."""
    predicted = logits(model, images).argmax(1)
    given: dict[str, Any] = {
        "labels": predicted,
        "maps": evidence(where, len(images))[:, None],
        "classes_of_maps": predicted[:, None],
        "classes": [0, 1],
        "names": ["red", "blue"],
        "settings": QUICK,
    }
    return suspect(model, images, **(given | options))


def confirmed(found: Sequence[Told]) -> list[tuple[str, str]]:
    return [(one.class_name, one.candidate.kind) for one in found if one.status == "confirmed"]


def objects(count: int) -> Tensor:
    return region(CENTRE).expand(count, -1, -1)


# --- what is there is found ----------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False])
def test_a_corner_is_found_and_neither_border_nor_background_is_blamed(masked: bool) -> None:
    images = smooth(0)
    masks = objects(len(images)) if masked else None
    found = suspected(Reads(region(CORNER)), images, region(CORNER), masks=masks)
    assert confirmed(found) == [("red", "place"), ("blue", "place")]
    for one in found:
        if one.status == "confirmed":
            assert one.candidate.words == "the top left corner, 6% of the picture"
            both, either = one.candidate.region & region(CORNER), one.candidate.region | region(CORNER)
            assert both.sum() > 0.9 * either.sum()  # pooled evidence is smoothed, so that corners are round
            effect = one.test.effect
            assert effect is not None
            assert effect.low > 0.5
            assert one.test.confidence > 0.95  # widened
            assert one.kind == "shortcut"
            assert "hangs on the top left corner" in one.statement


@pytest.mark.parametrize("masked", [True, False])
def test_a_border_is_found(masked: bool) -> None:
    images = smooth(1)
    # A frame of one colour, as frames are.
    colour = torch.rand(len(images), 3, 1, 1, generator=torch.Generator().manual_seed(1))
    images = torch.where(border(), colour, images)
    masks = objects(len(images)) if masked else None
    found = suspected(Reads(border()), images, border(), masks=masks)
    assert confirmed(found) == [("red", "border"), ("blue", "border")]


@pytest.mark.parametrize("masked", [True, False])
def test_the_whole_picture_is_no_place(masked: bool) -> None:
    images = smooth(2)
    everywhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    masks = objects(len(images)) if masked else None
    found = suspected(Reads(everywhere, 400.0), images, everywhere, masks=masks)
    assert set(confirmed(found)) <= {("red", "background"), ("blue", "background")}
    # Six parts in seven of what decides are background.
    assert not masked or len(confirmed(found)) == 2


@pytest.mark.parametrize("masked", [True, False])
def test_a_glyph_at_varying_places_is_found(masked: bool) -> None:
    images, where = stamped(smooth(3), torch.arange(0, 120, 2))
    found = suspected(
        Matches(glyph()), images, where, masks=objects(len(images)) & ~where if masked else None
    )
    assert confirmed(found) == [("red", "patch")]
    (one,) = (one for one in found if one.status == "confirmed")
    regions = one.candidate.region
    assert torch.equal(regions.flatten(1).any(1), where.flatten(1).any(1))
    assert float((regions & where).sum() / regions.sum()) > 0.95
    assert one.test.transplant is not None
    assert one.test.transplant.rate > 0.9
    assert one.test.removal is not None
    assert one.test.removal.rate > 0.9


def test_a_region_that_is_right_in_every_group_is_an_insight() -> None:
    images = smooth(4, 200)
    groups = ["north", "south"] * 100
    options = {"masks": objects(200), "groups": groups}
    model = Reads(region(CORNER))
    found = suspected(model, images, region(CORNER), **options)
    insights = [one for one in found if one.status == "confirmed"]
    assert {one.kind for one in insights} == {"insight"}
    assert all(estimate.low > 0.5 for one in insights for estimate in one.groups.values())
    # In the south the corner tells nothing.
    labels = logits(model, images).argmax(1)
    labels[1::2] = torch.arange(100) % 2
    found = suspected(model, images, region(CORNER), labels=labels, **options)
    assert {one.kind for one in found if one.status == "confirmed"} == {"shortcut"}


def test_a_group_too_small_to_tell_makes_no_insight() -> None:
    images = smooth(4, 200)
    groups = ["north"] * 180 + ["south"] * 20
    found = suspected(Reads(region(CORNER)), images, region(CORNER), masks=objects(200), groups=groups)
    assert {one.kind for one in found if one.status == "confirmed"} == {"shortcut"}


# --- what is not there is not --------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False])
def test_a_model_that_reads_the_object_has_nothing_confirmed(masked: bool) -> None:
    alarms = 0
    for seed in range(20):
        images = smooth(100 + seed, 70)
        generator = torch.Generator().manual_seed(seed)
        # Maps that point anywhere, as those of a poor method do.
        top, left = torch.randint(0, 22, (2,), generator=generator).tolist()
        where = region((slice(top, top + 9), slice(left, left + 9)))
        masks = objects(70) if masked else None
        alarms += bool(confirmed(suspected(Reads(region(CENTRE)), images, where, masks=masks)))
    assert alarms <= 1


def test_evidence_on_the_object_is_expected() -> None:
    images = smooth(5)
    found = suspected(Reads(region(CENTRE)), images, region(CENTRE), masks=objects(len(images)))
    told = [one for one in found if one.candidate.kind == "object"]
    assert told
    assert {one.status for one in told} == {"dismissed"}
    assert confirmed(found) == []


def test_without_masks_the_middle_may_be_the_object() -> None:
    images = smooth(5)
    found = suspected(Reads(region(CENTRE)), images, region(CENTRE))
    (place, *_) = (one for one in found if one.candidate.kind == "place")
    assert place.status == "untested"
    assert "masks of the objects would tell" in place.statement
    assert confirmed(found) == []


def test_a_constant_model_moves_nothing() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            # By a pixel that no region reaches, so that both classes are predicted.
            out = (images[:, 0, 16, 16] > 0.5).float()
            return torch.stack([out, 1 - out], 1)

    found = suspected(Constant(), smooth(6), region(CORNER), masks=objects(120))
    for one in found:
        for route in (one.test.transplant, one.test.removal):
            if route is not None:
                assert route.rate == 0
                assert set(route.placebos.values()) == {0.0}
                assert route.log_odds == 0
                assert route.effect[:3] == (0, 0, 0)


# --- how it is counted ---------------------------------------------------------------------------


def test_no_more_pictures_are_asked_than_the_plan_says() -> None:
    model, images = Reads(region(CORNER)), smooth(7)
    predicted = logits(model, images).argmax(1)
    model.asked = 0
    suspect(
        model, images, predicted, evidence(region(CORNER), 120)[:, None], predicted[:, None],
        classes=[0, 1], names=["red", "blue"], masks=objects(120), groups=["all"] * 120, settings=QUICK,
    )  # fmt: skip
    assert 120 < model.asked <= most_evaluations(120, 2, QUICK)


def test_batches_change_nothing() -> None:
    images = smooth(8, 80)
    first, second = (
        suspected(Reads(region(CORNER)), images, region(CORNER), batch=batch) for batch in (7, 80)
    )
    assert [one.id for one in first] == [one.id for one in second]
    assert [one.details()["n"] for one in first] == [one.details()["n"] for one in second]
    assert [one.statement for one in first] == [one.statement for one in second]
    assert len({one.id for one in first}) == len(first)


def test_pictures_of_few_sources_are_few_samples() -> None:
    images = smooth(9)
    alone = suspected(Reads(region(CORNER)), images, region(CORNER))
    shared = suspected(
        Reads(region(CORNER)), images, region(CORNER), sources=[f"film {row % 12}" for row in range(120)]
    )
    one, other = (next(x for x in found if x.candidate.kind == "place") for found in (alone, shared))
    assert one.test.effect is not None
    assert other.test.effect is not None
    assert other.test.effect.n <= 12 < one.test.effect.n


def test_too_few_pictures_are_told_as_untested() -> None:
    found = suspected(Reads(region(CORNER)), smooth(10, 40), region(CORNER))
    tests = [one.test for one in found if one.candidate.kind in ("place", "border")]
    assert {test.status for test in tests} == {"untested"}
    assert all("30 are needed" in test.why for test in tests)


def test_ranking_in_groups_is_the_area_under_the_curve() -> None:
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(np.round(generator.normal(size=100), 1))  # with ties
    positive = torch.from_numpy(generator.random(100) < 0.4)
    groups = ["a"] * 60 + ["b"] * 40
    found = predicts_in_groups(scores, positive, groups, range(100), settings=QUICK)
    for name, rows in (("a", slice(0, 60)), ("b", slice(60, 100))):
        assert found[name].value == pytest.approx(roc_auc_score(positive[rows], scores[rows]))
        assert 0 <= found[name].low <= found[name].value <= found[name].high <= 1


def test_details_are_plain_data() -> None:
    import json

    for one in suspected(Reads(region(CORNER)), smooth(0), region(CORNER), masks=objects(120)):
        json.dumps({"evidence": one.evidence(), "test": one.details()}, allow_nan=False)
        assert one.statement.endswith(".")
        assert "\n" not in one.statement


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"masks": torch.ones(120, 16, 16)}, DataError, r"masks must be \(120, 32, 32\)"),
        ({"maps": torch.rand(120, 1, 16, 16)}, DataError, r"maps must be \(M, K, 32, 32\)"),
        ({"classes_of_maps": torch.zeros(7, 1)}, DataError, "need as many classes"),
        ({"rows": [500] * 120}, DataError, "there are 120"),
        ({"groups": ["a"]}, DataError, "120 pictures need as many groups, got 1"),
        ({"sources": ["a"]}, DataError, "as many sources"),
        ({"labels": torch.zeros(3)}, DataError, "as many labels"),
        ({"classes": [4]}, ParamsError, "there is no class 4; the model has 2"),
    ],
)
def test_what_does_not_go_together_is_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        suspected(Reads(region(CORNER)), smooth(11), region(CORNER), **options)


@pytest.mark.parametrize(
    "wrong", [{"least": 1}, {"matters": 1.0}, {"confidence": 1.0}, {"pictures": 0}, {"resamples": 5}]
)
def test_settings_that_will_not_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(wrong))):
        Settings(**wrong)


def test_a_class_that_is_never_predicted_has_no_candidates() -> None:
    images = smooth(12)
    images[:, 0] = images[:, 2] + 0.1  # all red
    assert {one.class_name for one in suspected(Reads(region(CORNER)), images, region(CORNER))} == {"red"}


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_left_as_it_was(raised: type[BaseException]) -> None:
    class Breaks(Reads):
        def __init__(self) -> None:
            super().__init__(region(CORNER))
            self.scale = nn.Parameter(torch.ones(()))
            self.left = 10**9

        def forward(self, images: Tensor) -> Tensor:
            self.left -= len(images)
            if self.left < 0:
                raise raised("enough")
            return super().forward(images) * self.scale

    model = Breaks()
    model.train()
    images = smooth(13)
    suspected(model, images, region(CORNER))
    model.left = 900
    with pytest.raises((raised, ModelError)):
        suspected(model, images, region(CORNER))
    assert model.training
    assert model.scale.requires_grad
    assert not model._forward_hooks
