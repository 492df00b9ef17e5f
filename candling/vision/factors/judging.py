"""What is said of a factor: whether it moves predictions, which names the finding, and what it teaches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from candling.statistics import Estimate
from candling.vision.factors.directions import directed, mean_by_source, separation, trend
from candling.vision.factors.doses import Array, measured, turned
from candling.vision.factors.results import FactorTest, Kind, Point, Region
from candling.vision.factors.transforms import FACTORS, Factor
from candling.vision.factors.trial import Trial, Tried, objects_measured

__all__ = ["UNSEEN", "judged", "leading", "of_the_object", "separated", "strongest", "untested"]

UNSEEN = 1 / 512  # a change that is no change: half a level of eight bits
_AS_STRONG = 0.75  # of the largest effect
_EXPLAINED = 0.25  # of the strongest factor's range
_SAID = 0.005  # below which a share is told as 0%


def judged(
    trial: Trial,
    factor: Factor,
    region: Region,
    keep: Tensor,
    sources: Sequence[Hashable],
    points: Sequence[Point],
    answers: Sequence[Tensor],
    ends: Sequence[Tensor],
    confidence: float,
    both: tuple[tuple[Array, NDArray[np.int64] | None], tuple[Array, NDArray[np.int64]] | None],
) -> FactorTest:
    settings, count = trial.settings, answers[0].shape[1]
    low, high = (answers[end].argmax(1).numpy() for end in (0, -1))
    half = trial.half[keep.numpy()]
    moved = directed(low, high, half, count)
    noise_low, noise_high = (one.argmax(1).numpy() for one in ends)
    noise_moved = directed(noise_low, noise_high, half, count)

    def estimate(values: Array) -> Estimate:
        return mean_by_source(
            values, sources, confidence=confidence, resamples=settings.resamples, seed=settings.seed
        )

    # A placebo that moves predictions back and forth takes nothing off, and may not add to the effect.
    over = moved - noise_moved if noise_moved.mean() > 0 else moved
    effect, placebo, excess = (estimate(one) for one in (moved, noise_moved, over))
    gains = np.bincount(high, minlength=count) - np.bincount(low, minlength=count)
    # Of predictions that nothing moves, the evidence tells the direction.
    push = (answers[-1] - answers[0]).mean(0).numpy()
    up, down = (
        (int(gains.argmax()), int(gains.argmin()))
        if gains.any()
        else (int(push.argmax()), int(push.argmin()))
    )
    rises = np.stack([(one[:, up] - one[:, down]).double().numpy() for one in answers], 1)
    confirmed = excess.value >= settings.effect and excess.low > 0 and effect.low > 0
    (values, known), train = both
    here = None if known is None else separated(factor, values, known, up, down)
    association = None if train is None else separated(factor, *train, up, down)
    kind: Kind | None = None
    if confirmed:
        kind = "bias"
        if train is not None:
            taught = association is not None and association.low > 0.5
            kind = (
                "shortcut"
                if taught and association is not None and association.value >= settings.association
                else "weakness"
            )
    shares = [
        (float((one.argmax(1) == up).float().mean()), float((one.argmax(1) == down).float().mean()))
        for one in answers
    ]
    curve = tuple(
        replace(point, gained=gained, lost=lost) for point, (gained, lost) in zip(points, shares, strict=True)
    )
    where = {"whole": "", "object": " on the object alone", "background": " on the background alone"}[region]
    few = "only " if effect.value >= _SAID else "no more than "
    share = f"{'' if confirmed else few}{max(effect.value, 0.0):.0%}"
    statement = (
        f"{factor.raised[:1].upper()}{factor.raised[1:]}{where} instead of {factor.lowered} moves {share} "
        f"of predictions one way, from {trial.named(down)} to {trial.named(up)} "
        f"(noise of equal size {placebo.value:.0%}; difference {excess.value:.0%}, "
        f"{confidence:.1%} interval {excess.low:.0%} to {excess.high:.0%}, n = {excess.n})"
    )
    if kind == "shortcut" and association is not None:
        statement += (
            f"; in training pictures {trial.named(up)} has more of it than {trial.named(down)} "
            f"in {association.value:.0%} of pairs"
        )
    elif kind == "weakness":
        statement += "; in training pictures these classes do not differ so"
    return FactorTest(
        slug=f"factor.{factor.name}.{region}",
        factor=factor.name,
        family=factor.family,
        region=region,
        status="confirmed" if confirmed else "dismissed",
        statement=statement + ".",
        kind=kind,
        effect=effect,
        placebo=placebo,
        excess=excess,
        flips=float((low != high).mean()),
        placebo_flips=float((noise_low != noise_high).mean()),
        trend=trend(rises),
        raises=up,
        lowers=down,
        rms=(points[0].rms + points[-1].rms) / 2,
        association=association,
        here=here,
        curve=curve,
    )


def separated(
    factor: Factor, values: Array, classes: NDArray[np.int64], up: int, down: int
) -> Estimate | None:
    """`separation` by a factor's values; those of a circular one from their mean direction."""
    if factor.circular:
        middle = np.exp(2j * np.pi * values[np.isin(classes, (up, down))]).mean()
        values = turned(values - np.angle(middle) / (2 * np.pi))
    return separation(values, classes, up, down)


def of_the_object(
    trial: Trial,
    factor: Factor,
    tests: list[FactorTest],
    labels: NDArray[np.int64] | None,
    groups: Sequence[str] | None,
) -> list[FactorTest]:
    """The tests of a factor with those called insight that say what the model knows of the object.

    That is a factor that counts on the object and not on the background, and by which objects of the class
    that it moves predictions to are told, in every group, from those of the class that it moves them from.

    Parameters
    ----------
    labels
        (N,) of the trial's pictures.
    groups
        N; None: all pictures are one.
    """
    by_region = {test.region: test for test in tests}
    on, off = by_region.get("object"), by_region.get("background")
    if labels is None or on is None or off is None or (on.status, off.status) != ("confirmed", "dismissed"):
        return tests
    assert on.raises is not None, "a confirmed one moves predictions somewhere"
    assert on.lowers is not None, "and from somewhere"
    keep, values = objects_measured(trial, factor)
    inside = np.array(["" for _ in keep] if groups is None else [groups[i] for i in keep.tolist()])
    known = labels[keep.numpy()]
    areas = [
        separated(factor, values[inside == group], known[inside == group], on.raises, on.lowers)
        for group in np.unique(inside)
    ]
    if not all(area is not None and area.low > 0.5 for area in areas):
        return tests
    least = min(area.value for area in areas if area is not None)
    told = (
        f"on the object alone, and objects of {trial.named(on.raises)} have more of it than those of "
        f"{trial.named(on.lowers)} in {least:.0%} of held-out pairs"
        f"{'' if groups is None else ', or more, in every group'}: something that the model knows"
    )
    return [
        replace(test, kind="insight", statement=f"{test.statement.removesuffix('.')}; {told}.")
        if test.status == "confirmed" and (test.raises, test.lowers) == (on.raises, on.lowers)
        else test
        for test in tests
    ]


def strongest(tests: list[FactorTest], tried: dict[str, Tried]) -> list[FactorTest]:
    """Which confirmed one names the finding, and which others follow from it."""
    best = leading(tests)
    if best is None:
        return tests
    out = []
    for test in tests:
        if test is best:
            test = replace(test, strongest=True)
        elif test.status == "confirmed" and (
            test.family == best.family or _follows(tried, test.factor, best.factor)
        ):
            test = replace(test, explained_by=best.slug)
        out.append(test)
    return out


def leading(tests: Sequence[FactorTest]) -> FactorTest | None:
    """The confirmed one that says best what was found, of the whole picture where there is one."""
    confirmed = [test for test in tests if test.status == "confirmed"]
    confirmed = [test for test in confirmed if test.region == "whole"] or confirmed
    if not confirmed:
        return None
    # Several may move as many predictions, as more light also makes edges steeper: then it is the one that
    # needs the smallest change of pixels for each.
    most = max(_excess(test) for test in confirmed)
    level = [test for test in confirmed if _excess(test) >= _AS_STRONG * most]
    return max(level, key=lambda test: _excess(test) / max(test.rms or 0.0, UNSEEN))


def _excess(test: FactorTest) -> float:
    return test.excess.value if test.excess else 0.0


def _follows(tried: dict[str, Tried], name: str, strongest: str) -> bool:
    """Whether changing one factor changes the strongest by a good part of its range."""
    other, best = tried.get(f"factor.{name}.whole"), tried.get(f"factor.{strongest}.whole")
    if other is None or best is None:
        return False
    moved = measured(best.factor, other.high) - measured(best.factor, other.low)
    if best.factor.circular:
        moved = turned(moved)
    return bool(np.abs(moved).mean() >= _EXPLAINED * best.span)


def untested(name: str, region: Region, why: str) -> FactorTest:
    family = FACTORS[name].family if name in FACTORS else name
    return FactorTest(
        f"factor.{name}.{region}", name, family, region, "untested", f"{family} was not tested: {why}."
    )
