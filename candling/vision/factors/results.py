"""How factors are tested, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from candling.errors import ParamsError
from candling.statistics import Estimate

__all__ = ["DoseSettings", "FactorTest", "Kind", "Point", "Region", "Status"]

Region = Literal["whole", "object", "background"]
Status = Literal["confirmed", "dismissed", "untested", "described"]
Kind = Literal["shortcut", "bias", "weakness", "insight"]


@dataclass(frozen=True)
class DoseSettings:
    """How factors are tested.

    Attributes
    ----------
    levels
        Shares of the pictures that lie below each dose, rising, in (0, 1); two at least.
    images
        How many pictures are tried at most, drawn by `seed`.
    least_sources
        With fewer independent pictures nothing is tested.
    effect
        What share of predictions must go one way, beyond the placebo, to be a finding.
    confidence
        Of all intervals of one call together (Bonferroni).
    association
        Probability that a training picture of the class that a factor moves predictions to has more of it
        than one of the class that it moves them away from, above which the factor is a shortcut.
    resamples, seed
        Of the bootstrap; the seed is also that of the placebo and of the choice of pictures.

    Raises
    ------
    ParamsError
        For a value outside these.
    """

    levels: tuple[float, ...] = (0.05, 0.275, 0.5, 0.725, 0.95)
    images: int = 128
    least_sources: int = 30
    effect: float = 0.2
    confidence: float = 0.95
    association: float = 0.65
    resamples: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        inside = all(0 < level < 1 for level in self.levels)
        if len(self.levels) < 2 or not inside or list(self.levels) != sorted(set(self.levels)):
            raise ParamsError(f"levels must be two or more rising shares in (0, 1), not {self.levels}")
        for name, low in (("images", 1), ("least_sources", 2), ("resamples", 100)):
            if getattr(self, name) < low:
                raise ParamsError(f"{name} must be at least {low}, not {getattr(self, name)}")
        for name in ("effect", "confidence", "association"):
            if not 0 < getattr(self, name) < 1:
                raise ParamsError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Point:
    """One dose of a curve.

    level: share of the pictures below it, or the dose itself of a factor that is only described. value: what
    the factor then measures, as it is on average. dose: mean of the doses given. rms: root mean square of the
    change, white being 1. changed: share of predictions that are not those of the pictures as they were.
    gained, lost: share of predictions that are the class that raising the factor moves them to, and of the
    class that it moves them from.
    """

    level: float
    value: float
    dose: float
    rms: float
    changed: float
    gained: float
    lost: float


@dataclass(frozen=True)
class FactorTest:
    """What came of one factor on one part of the pictures.

    Attributes
    ----------
    slug
        ``factor.<name>.<region>``.
    factor, family
        The probe, and what a person calls it.
    status
        "confirmed": `effect` beyond that of the placebo is as large as the settings ask, and its interval
        lies above 0. "dismissed" else. "untested": too few pictures, or they do not differ in it.
        "described": a factor that takes pictures far out of the ordinary, of which only the curve is told.
    kind
        Of a confirmed one. "shortcut": in the training pictures given, the class that predictions move to has
        more of the factor than the class that they leave. "weakness": it has not, so that no training picture
        explains it. "bias": no training pictures were given. "insight": it acts on the object alone, and
        objects that were held out differ so between these classes in every group.
    strongest
        Whether it names what was found: one of all confirmed ones at most.
    explained_by
        Slug of the strongest factor, where changing this one changes that one too, or is a part of it; id of
        the place that it acts through, where it moves few predictions outside that place.
    effect, placebo, excess
        Share of predictions that go one way from the lowest to the highest dose, that of noise of equal size,
        and the difference, with intervals over sources. For a described one: share that stays.
    flips, placebo_flips
        Share of predictions that differ between the lowest and the highest dose, whichever way.
    trend
        Mean of the pictures' rank correlations of dose with the evidence for `raises` over `lowers`.
    raises, lowers
        Class that raising the factor moves predictions to, and from.
    association, here
        How well the factor tells these two classes apart in training pictures, and in these: area under the
        ROC curve.
    """

    slug: str
    factor: str
    family: str
    region: Region
    status: Status
    statement: str
    kind: Kind | None = None
    strongest: bool = False
    explained_by: str | None = None
    effect: Estimate | None = None
    placebo: Estimate | None = None
    excess: Estimate | None = None
    flips: float | None = None
    placebo_flips: float | None = None
    trend: float | None = None
    raises: int | None = None
    lowers: int | None = None
    rms: float | None = None
    association: Estimate | None = None
    here: Estimate | None = None
    curve: tuple[Point, ...] = ()
