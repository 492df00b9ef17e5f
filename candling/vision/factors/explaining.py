"""Which suspicions of places a factor explains: a swapped background brings its light and colour along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from candling.vision.counterfactuals import Tested
from candling.vision.factors.testing import FactorTest

__all__ = ["explained"]

_AS_STRONG = 0.75  # of the background's effect


def explained(places: Sequence[Tested], factors: Sequence[FactorTest]) -> list[Tested]:
    """Places with the background dismissed where a factor accounts for what it does.

    That is the strongest factor of the whole picture, if it moves at least three quarters of the predictions
    that the background moves. A background that is read for what is in it keeps its finding: light and colour
    move fewer (measured on drawn scenes: 0.4 of them, where a tint moves as many by itself).
    """
    whole = next((one for one in factors if one.strongest and one.region == "whole"), None)
    if whole is None or whole.excess is None:
        return list(places)
    found = []
    for one in places:
        effect = one.test.effect
        background = one.candidate.kind == "background" and one.status == "confirmed" and effect is not None
        if background and effect is not None and whole.excess.value >= _AS_STRONG * effect.value:
            why = f"{whole.family}, which comes along with a background, moves predictions as much by itself"
            told = one.statement.replace("' hangs on ", "' does not hang on ", 1)
            one = replace(
                one, kind="shortcut", statement=f"{told} But {why}.",
                test=replace(one.test, status="dismissed", why=why),
            )  # fmt: skip
        found.append(one)
    return found
