"""What explains what: a place the factor that acts through it, a factor the background that brings it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from candling.vision.counterfactuals import Tested
from candling.vision.factors.judging import leading
from candling.vision.factors.results import DoseSettings, FactorTest
from candling.vision.factors.testing import dose_response, evaluations
from candling.vision.factors.transforms import FACTORS

__all__ = ["explained", "most_outside", "through_places"]

_AS_STRONG = 0.75  # of the background's effect
_LEFT = 0.5  # of a factor's effect, outside a place
_LOCAL = ("place", "border", "patch")
_ENDS = (0.05, 0.95)


def most_outside(count: int, places: int) -> int:
    """Pictures that `through_places` shows the model at most, of so many pictures and places."""
    return (1 + places) * evaluations(count, masks=True, names=list(FACTORS), parts=["background"])


def through_places(
    model: nn.Module,
    images: Tensor,
    places: Sequence[Tested],
    factors: Sequence[FactorTest],
    *,
    sources: Sequence[Hashable] | None = None,
    like_train: tuple[Tensor, Tensor] | None = None,
    settings: DoseSettings | None = None,
    batch: int | None = None,
) -> list[FactorTest]:
    """Factors, with the place told that one acts through.

    A glyph in a corner is harder to see in the dark, and a coloured frame turns its colour with the
    picture's. So each confirmed factor of the whole picture is raised once more outside all confirmed places:
    where it moves less than half as many predictions there, places explain it, and each is left out alone to
    see which. See `dose_response` for what is given, and `most_outside` for what it costs.
    """
    local = [one for one in places if one.status == "confirmed" and one.candidate.kind in _LOCAL]
    whole = {one.factor: one for one in factors if one.region == "whole" and one.status == "confirmed"}
    if not local or not whole:
        return list(factors)
    every = torch.arange(len(images))
    regions = [one.candidate.of(every) for one in local]

    def left(region: Tensor, names: Sequence[str]) -> dict[str, float]:
        """What share each factor moves outside a region, of those that move less than half of it there."""
        outside = dose_response(
            model, images, masks=region, sources=sources, like_train=like_train, names=list(names),
            parts=["background"], settings=replace(settings or DoseSettings(), levels=_ENDS), batch=batch,
        )  # fmt: skip
        found = {}
        for one in outside:
            before = whole[one.factor].effect
            if one.effect is None or before is None:
                continue
            if one.effect.value < _LEFT * before.value and one.effect.high < before.value:
                found[one.factor] = one.effect.value
        return found

    through = left(torch.stack(regions).any(0), list(whole))
    if not through:
        return list(factors)
    alone = [left(region, list(through)) if len(local) > 1 else through for region in regions]
    found = []
    for one in factors:
        if one.status == "confirmed" and one.factor in through:
            shares = {i: moved[one.factor] for i, moved in enumerate(alone) if one.factor in moved}
            told = min(shares, key=shares.__getitem__, default=None)
            place = max(local, key=_pull) if told is None else local[told]
            share = through[one.factor] if told is None else shares[told]
            one = replace(one, strongest=False, explained_by=place.id)
            if one.region == "whole":
                where = "the confirmed places together" if told is None else place.candidate.where
                outside = f"outside {'them' if told is None else 'it'}, it moves {max(share, 0.0):.0%}"
                one = replace(one, statement=f"{one.statement} It acts through {where}: {outside}.")
        elif one.explained_by in {f"factor.{name}.whole" for name in through}:
            one = replace(one, explained_by=None)
        found.append(one)
    if not any(one.strongest for one in found):
        best = leading([one for one in found if one.explained_by is None])
        found = [replace(one, strongest=True) if one is best else one for one in found]
    return found


def _pull(place: Tested) -> float:
    return place.test.effect.value if place.test.effect else 0.0


def explained(places: Sequence[Tested], factors: Sequence[FactorTest]) -> list[Tested]:
    """Places with backgrounds told to be explained by a factor that does what they do.

    That is the strongest factor of the whole picture, if it moves at least three quarters of the predictions
    that the background moves, and not by the object alone. Whether it counts in the background or everywhere,
    a background that is swapped brings it along; so the finding stays, and says so. A background that is read
    for what is in it is not explained: light and colour move fewer (measured on drawn scenes: 0.4 of them,
    where a tint moves as many by itself).
    """
    whole = next((one for one in factors if one.strongest and one.region == "whole"), None)
    if whole is None or whole.excess is None or whole.kind == "insight":
        return list(places)
    found = []
    for one in places:
        effect = one.test.effect
        background = one.candidate.kind == "background" and one.status == "confirmed" and effect is not None
        if background and effect is not None and whole.excess.value >= _AS_STRONG * effect.value:
            why = f"by its {whole.family}, which moves predictions as much by itself"
            one = replace(
                one, kind="shortcut", explained_by=whole.slug, statement=f"{one.statement} It counts {why}."
            )
        found.append(one)
    return found
