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

    A factor of the whole picture accounts for it if it is the strongest one confirmed and moves at least
    three quarters of the predictions that the background moves; and, where masks let that be asked, if it
    moves predictions on the object alone as well, which a model that reads the background does not mind.
    """
    whole = next(
        (one for one in factors if one.strongest and one.region == "whole" and one.excess is not None), None
    )
    if whole is None or whole.excess is None:
        return list(places)
    on_objects = [one for one in factors if one.factor == whole.factor and one.region == "object"]
    if on_objects and on_objects[0].status != "confirmed":
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
