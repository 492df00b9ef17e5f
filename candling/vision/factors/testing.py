"""Dose and response: what a prediction does as one factor of a picture is raised, beside a placebo.

A dose is not a number of the factor's own but a place in the range that the pictures themselves show: each
picture is brought to the value that a given share of the pictures lies below. So pictures stay ordinary,
factors can be compared, and it does not count as evidence that a picture made black is called something else.
Between the lowest and the highest dose nothing differs but the factor, and all pictures have the same value
of it; if predictions still go one way, the factor moves them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candling.errors import DataError, ParamsError
from candling.models import log_odds, logits
from candling.statistics import Estimate
from candling.vision.counterfactuals import feathered
from candling.vision.factors.directions import directed, folds, mean_by_source, separation, trend
from candling.vision.factors.placebo import noise, rms, same_size
from candling.vision.factors.transforms import FACTORS, Factor, shuffled, silhouette

__all__ = ["DoseSettings", "FactorTest", "Kind", "Point", "Region", "Status", "dose_response", "evaluations"]

Array = NDArray[np.float64]
Region = Literal["whole", "object", "background"]
Status = Literal["confirmed", "dismissed", "untested", "described"]
Kind = Literal["shortcut", "bias", "weakness"]

DESCRIBED = ("texture", "silhouette")
_TILES = (2, 4, 8)
_PART_LEVELS = 2  # of an object or a background alone: the lowest and the highest
_GRID = 9  # doses at which a picture is measured to find the one that gives it a value
_CHUNK = 32  # pictures changed at a time
_UNSEEN = 1 / 512  # a change that is no change: half a level of eight bits
_AS_STRONG = 0.75  # of the largest effect
_EXPLAINED = 0.25  # of the strongest factor's range


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
        explains it. "bias": no training pictures were given.
    strongest
        Whether it names what was found: one of all confirmed ones at most.
    explained_by
        Slug of the strongest factor, where changing this one changes that one too, or is a part of it.
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


def evaluations(
    count: int,
    *,
    masks: bool = False,
    names: Sequence[str] | None = None,
    settings: DoseSettings | None = None,
) -> int:
    """Pictures that `dose_response` shows the model, at most.

    It is less where sources are fewer than pictures and not enough, where pictures do not differ in a factor,
    and where some have no object.

    Parameters
    ----------
    count
        How many pictures there are.
    masks
        Whether they have masks.
    """
    settings = settings or DoseSettings()
    chosen = _names(names, masks)
    n = min(count, settings.images)
    if n < settings.least_sources:
        return 0
    parts = 2 * (_PART_LEVELS + 2) if masks else 0
    each = sum(len(settings.levels) + 2 + parts for name in chosen if name in FACTORS)
    described = 2 * len(_TILES) * ("texture" in chosen) + 2 * ("silhouette" in chosen)
    return n * (1 + each + described)


def dose_response(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    masks: Tensor | None = None,
    sources: Sequence[Hashable] | None = None,
    like_train: tuple[Tensor, Tensor] | None = None,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    settings: DoseSettings | None = None,
    batch: int | None = None,
) -> list[FactorTest]:
    """Test factors that are not places: does raising one move predictions to one class?

    Parameters
    ----------
    model
        Images in [0, 1] to scores. It needs no gradient.
    images
        (N, 3, H, W), uint8 or float in [0, 1].
    labels
        int64 (N,), for `FactorTest.here` alone; below 0 where there is none.
    masks
        (N, H, W), true or above 0 on the object: each factor is also changed on the object and on the
        background alone. Pictures without an object are left out there.
    sources
        N, what each picture was taken from; pictures of one source are one sample.
    like_train
        Images and labels drawn as the training pictures were. They tell a shortcut from a weakness, and the
        range of doses is that of both sets together. The model does not see them.
    classes
        Names for the sentences.
    names
        Of `FACTORS`, "texture" and "silhouette" (which needs masks); None: all that can be had.
    batch
        Pictures at a time for the model; None: by their size.

    Returns
    -------
    list
        A test a factor and region, in the order of the names; see `evaluations` for what it costs.

    Raises
    ------
    DataError
        If pictures, labels, masks or sources do not fit together.
    ParamsError
        If a name is not known, or "silhouette" is asked for without masks.
    """
    settings = settings or DoseSettings()
    chosen = _names(names, masks is not None)
    _check(images, labels, masks, sources)
    if like_train is not None:
        _check(like_train[0], like_train[1], None, None)
    origins: list[Hashable] = [*range(len(images))] if sources is None else list(sources)
    rows = np.sort(np.random.default_rng(settings.seed).permutation(len(images))[: settings.images])
    taken = torch.as_tensor(rows)
    origins = [origins[row] for row in rows]
    trial = _Trial(
        model,
        _unit(images[taken]),
        None if masks is None else masks[taken] > 0,
        origins,
        rows.tolist(),
        settings,
        batch,
        classes,
    )
    have = len(set(origins))
    regions: tuple[Region, ...] = ("whole",) if masks is None else ("whole", "object", "background")
    if have < settings.least_sources:
        why = f"{have} independent pictures are fewer than the {settings.least_sources} that a test takes"
        return [
            _untested(name, region, why)
            for name in chosen
            for region in (regions if name in FACTORS else ("whole",))
        ]
    trial.ask()
    here = None if labels is None else labels[taken].cpu().numpy()
    found: list[FactorTest] = []
    tried: dict[str, _Tried] = {}
    factors = [FACTORS[name] for name in chosen if name in FACTORS]
    confidence = 1 - (1 - settings.confidence) / max(1, len(factors) * len(regions))
    for factor in factors:
        tests, made = _try(trial, factor, regions, confidence, here, like_train)
        found += tests
        tried |= {test.slug: one for test, one in zip(tests, made, strict=False)}
    found = _strongest(found, tried)
    if "texture" in chosen:
        found.append(_texture(trial))
    if "silhouette" in chosen:
        found.append(_silhouette(trial))
    return found


# -- What is tried ---------------------------------------------------------------------------------------


class _Trial:
    """The pictures, and the model's answers to what is made of them."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        masks: Tensor | None,
        sources: list[Hashable],
        rows: list[int],
        settings: DoseSettings,
        batch: int | None,
        classes: Sequence[str] | None,
    ) -> None:
        self.model, self.images, self.masks, self.sources = model, images, masks, sources
        self.rows, self.settings, self.batch, self.names = rows, settings, batch, classes
        self.half = folds(sources, settings.seed)
        self.before = torch.empty(0, 0)

    def ask(self) -> None:
        """What the model says of the pictures as they are."""
        self.before = self.answers(self.images)

    def answers(self, images: Tensor) -> Tensor:
        """Log-odds (N, K) of images."""
        return log_odds(self.model, logits(self.model, images, batch=self.batch)).cpu()

    def placebo(self, changed: Tensor, key: str, keep: Tensor, weights: Tensor | None) -> Tensor:
        """The pictures in rows `keep` with noise as large as the change that was made to them."""
        images = self.images[keep]
        out = []
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            fields = noise(
                images.shape[1:],
                [(self.settings.seed, key, self.rows[i]) for i in keep[part].tolist()],
            )
            size = rms(changed[part] - images[part])
            spread = None if weights is None else weights[part]
            out.append(same_size(images[part], size, fields, spread))
        return torch.cat(out)

    def named(self, number: int) -> str:
        return str(number) if self.names is None else self.names[number]


@dataclass(frozen=True)
class _Tried:
    """Pictures at the lowest and the highest dose, and the factor's range."""

    factor: Factor
    low: Tensor
    high: Tensor
    span: float


def _try(
    trial: _Trial,
    factor: Factor,
    regions: Sequence[Region],
    confidence: float,
    here: NDArray[np.int64] | None,
    like_train: tuple[Tensor, Tensor] | None,
) -> tuple[list[FactorTest], list[_Tried]]:
    """The tests of one factor on all regions."""
    settings = trial.settings
    values = _measured(factor, trial.images)
    others = None if like_train is None else _measured(factor, like_train[0])
    centre, targets = _targets(factor, values, others, settings.levels)
    span = float(targets[-1] - targets[0])
    doses = _doses(factor, trial.images, values, centre, targets)
    whole = [_changed(factor, trial.images, dose) for dose in doses]
    if max(float(rms(one - trial.images).mean()) for one in (whole[0], whole[-1])) < _UNSEEN:
        why = f"the pictures do not differ in {factor.family}"
        return [_untested(factor.name, region, why) for region in regions], []
    tests, made = [], []
    for region in regions:
        keep, weights = _part(trial, region)
        sources = [trial.sources[i] for i in keep.tolist()]
        if len(set(sources)) < settings.least_sources:
            have = len(set(sources))
            why = f"{have} independent pictures with an object are fewer than {settings.least_sources}"
            tests.append(_untested(factor.name, region, why))
            continue
        levels = range(len(targets)) if weights is None else (0, len(targets) - 1)
        images = trial.images[keep]
        changed = [
            whole[level] if weights is None else torch.lerp(images, whole[level][keep], weights)
            for level in levels
        ]
        answers = [trial.answers(one) for one in changed]
        ends = [
            trial.answers(trial.placebo(changed[place], f"{factor.name} {end}", keep, weights))
            for place, end in ((0, "low"), (-1, "high"))
        ]
        if weights is None:
            made.append(_Tried(factor, changed[0], changed[-1], span))
        points = [
            Point(
                settings.levels[level],
                float(targets[level]) if weights is None else float("nan"),
                float(doses[level][keep].mean()),
                float(rms(one - images, None if weights is None else weights[:, 0]).mean()),
                float((answer.argmax(1) != trial.before[keep].argmax(1)).float().mean()),
                0.0,
                0.0,
            )
            for level, one, answer in zip(levels, changed, answers, strict=True)
        ]
        known = None if here is None else here[keep.numpy()]
        both = (
            (values[keep.numpy()], known),
            None if others is None or like_train is None else (others, like_train[1].cpu().numpy()),
        )
        tests.append(_judged(trial, factor, region, keep, sources, points, answers, ends, confidence, both))
    return tests, made


def _part(trial: _Trial, region: Region) -> tuple[Tensor, Tensor | None]:
    """Rows that have the region, and its weights (n, 1, H, W); None where it is the whole picture."""
    if region == "whole" or trial.masks is None:
        return torch.arange(len(trial.images)), None
    share = trial.masks.flatten(1).float().mean(1)
    keep = ((share > 0) & (share < 1)).nonzero()[:, 0].cpu()
    weights = feathered(trial.masks[keep]).to(trial.images)
    return keep, weights if region == "object" else 1 - weights


def _changed(factor: Factor, images: Tensor, doses: Array) -> Tensor:
    amounts = torch.as_tensor(doses, dtype=images.dtype, device=images.device)
    parts = zip(images.split(_CHUNK), amounts.split(_CHUNK), strict=True)
    return torch.cat([factor.apply(one, amount) for one, amount in parts])


def _measured(factor: Factor, images: Tensor) -> Array:
    parts = [factor.measure(_unit(part)) for part in images.split(_CHUNK)]
    return torch.cat(parts).double().cpu().numpy()


def _targets(
    factor: Factor, values: Array, others: Array | None, levels: Sequence[float]
) -> tuple[float, Array]:
    """Values that the given shares of the pictures lie below; of a circular one, from its mean direction."""
    pooled = values if others is None else np.concatenate([values, others])
    if not factor.circular:
        return 0.0, np.quantile(pooled, levels)
    centre = float(np.angle(np.exp(2j * np.pi * pooled).mean()) / (2 * np.pi))
    return centre, np.quantile(_turned(pooled - centre), levels)


def _turned(turns: Array) -> Array:
    return np.asarray((turns + 0.5) % 1 - 0.5)


def _doses(factor: Factor, images: Tensor, values: Array, centre: float, targets: Array) -> list[Array]:
    """For each target the doses (N,) that bring the pictures there, or as near as ordinary ones go."""
    if factor.circular:
        away = _turned(values - centre)
        return [np.clip(_turned(target - away), factor.least, factor.most) for target in targets]
    grid = np.unique(np.concatenate([np.linspace(factor.least, factor.most, _GRID), [0.0]]))
    curve = np.stack([_measured(factor, _changed(factor, images, np.full(len(images), one))) for one in grid])
    # What clips or is coarse may turn back a little; what is asked for is the nearest dose on the rise.
    rising = np.maximum.accumulate(curve, 0)
    return [
        np.array([np.interp(target, rising[:, row], grid) for row in range(len(images))])
        for target in targets
    ]


# -- What is said ----------------------------------------------------------------------------------------


def _judged(
    trial: _Trial,
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
    here = None if known is None else _separation(factor, values, known, up, down)
    association = None if train is None else _separation(factor, *train, up, down)
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
    moves = "moves" if confirmed else "moves only"
    statement = (
        f"{factor.raised[:1].upper()}{factor.raised[1:]}{where} instead of {factor.lowered} {moves} "
        f"{effect.value:.0%} of predictions one way, from {trial.named(down)} to {trial.named(up)} "
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


def _separation(
    factor: Factor, values: Array, classes: NDArray[np.int64], up: int, down: int
) -> Estimate | None:
    if factor.circular:
        middle = np.exp(2j * np.pi * values[np.isin(classes, (up, down))]).mean()
        values = _turned(values - np.angle(middle) / (2 * np.pi))
    return separation(values, classes, up, down)


def _strongest(tests: list[FactorTest], tried: dict[str, _Tried]) -> list[FactorTest]:
    """Which confirmed one names the finding, and which others follow from it."""
    confirmed = [test for test in tests if test.status == "confirmed" and test.region == "whole"]
    confirmed = confirmed or [test for test in tests if test.status == "confirmed"]
    if not confirmed:
        return tests
    # Several may move as many predictions, as more light also makes edges steeper: then it is the one that
    # needs the smallest change of pixels for each.
    most = max(_excess(test) for test in confirmed)
    level = [test for test in confirmed if _excess(test) >= _AS_STRONG * most]
    best = max(level, key=lambda test: _excess(test) / max(test.rms or 0.0, _UNSEEN))
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


def _excess(test: FactorTest) -> float:
    return test.excess.value if test.excess else 0.0


def _follows(tried: dict[str, _Tried], name: str, strongest: str) -> bool:
    """Whether changing one factor changes the strongest by a good part of its range."""
    other, best = tried.get(f"factor.{name}.whole"), tried.get(f"factor.{strongest}.whole")
    if other is None or best is None:
        return False
    moved = _measured(best.factor, other.high) - _measured(best.factor, other.low)
    if best.factor.circular:
        moved = _turned(moved)
    return bool(np.abs(moved).mean() >= _EXPLAINED * best.span)


def _untested(name: str, region: Region, why: str) -> FactorTest:
    family = FACTORS[name].family if name in FACTORS else name
    return FactorTest(
        f"factor.{name}.{region}", name, family, region, "untested", f"{family} was not tested: {why}."
    )


# -- What is only described ------------------------------------------------------------------------------


def _texture(trial: _Trial) -> FactorTest:
    settings, keep = trial.settings, torch.arange(len(trial.images))
    made = []
    for tiles in _TILES:
        parts = []
        for row, image in zip(trial.rows, trial.images, strict=True):
            generator = torch.Generator().manual_seed(1_000_003 * settings.seed + 31 * row + tiles)
            parts.append(shuffled(image[None], min(tiles, *image.shape[1:]), generator))
        made.append((float(tiles), torch.cat(parts)))
    return _told(
        trial, "texture", "whole", keep, None, made,
        "With {dose:.0f} × {dose:.0f} tiles of each picture shuffled, which leaves texture and no shape",
    )  # fmt: skip


def _silhouette(trial: _Trial) -> FactorTest:
    keep, weights = _part(trial, "object")
    sources = {trial.sources[i] for i in keep.tolist()}
    if trial.masks is None or len(sources) < trial.settings.least_sources:
        why = f"{len(sources)} independent pictures with an object are too few"
        return _untested("silhouette", "whole", why)
    images = trial.images[keep]
    flat = silhouette(images, trial.masks[keep], torch.ones(len(images)))
    return _told(
        trial, "silhouette", "whole", keep, weights, [(1.0, flat)],
        "With the object filled with its mean colour, which leaves its outline",
    )  # fmt: skip


def _told(
    trial: _Trial,
    name: str,
    region: Region,
    keep: Tensor,
    weights: Tensor | None,
    made: Sequence[tuple[float, Tensor]],
    what: str,
) -> FactorTest:
    """The curve of a change, and its last dose beside noise of equal size."""
    settings, sources = trial.settings, [trial.sources[i] for i in keep.tolist()]
    before, images = trial.before[keep].argmax(1), trial.images[keep]
    points, stays, steady = [], np.empty(0), np.empty(0)
    for dose, changed in made:
        answers = trial.answers(changed).argmax(1)
        noisy = trial.answers(trial.placebo(changed, f"{name} {dose}", keep, weights)).argmax(1)
        stays, steady = ((one == before).double().numpy() for one in (answers, noisy))
        size = float(rms(changed - images).mean())
        points.append(Point(dose, dose, dose, size, 1 - float(stays.mean()), 0.0, 0.0))

    def estimate(values: Array) -> Estimate:
        return mean_by_source(
            values, sources, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
        )

    effect, placebo, excess = (estimate(one) for one in (stays, steady, stays - steady))
    statement = (
        f"{what.format(dose=made[-1][0])}, {effect.value:.0%} of predictions stay "
        f"({settings.confidence:.0%} interval {effect.low:.0%} to {effect.high:.0%}, n = {effect.n}); "
        f"with noise of equal size {placebo.value:.0%} do."
    )
    return FactorTest(
        f"factor.{name}.{region}", name, name, region, "described", statement,
        effect=effect, placebo=placebo, excess=excess, flips=1 - effect.value,
        placebo_flips=1 - placebo.value, rms=points[-1].rms, curve=tuple(points),
    )  # fmt: skip


# -- What is asked for -----------------------------------------------------------------------------------


def _names(names: Sequence[str] | None, masks: bool) -> list[str]:
    known = [*FACTORS, *DESCRIBED]
    if names is None:
        return [name for name in known if masks or name != "silhouette"]
    for name in names:
        if name not in known:
            raise ParamsError(f"factor {name!r} is not known; there are {', '.join(known)}")
    if "silhouette" in names and not masks:
        raise ParamsError("factor 'silhouette' needs masks of the objects; give masks, or leave it out")
    return list(dict.fromkeys(names))


def _check(
    images: Tensor, labels: Tensor | None, masks: Tensor | None, sources: Sequence[Hashable] | None
) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise DataError(f"pictures must be (N, 3, H, W) and at least one, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise DataError(f"pictures must be uint8, or float in [0, 1], got {images.dtype}")
        if not bool((images >= 0).all() and (images <= 1).all()):
            raise DataError("pictures must lie in [0, 1] and have no NaN")
    for name, given in (("labels", labels), ("masks", masks), ("sources", sources)):
        if given is not None and len(given) != len(images):
            raise DataError(f"{len(images)} pictures need as many {name}, got {len(given)}")
    if masks is not None and masks.shape[1:] != images.shape[2:]:
        raise DataError(f"masks of {tuple(masks.shape[1:])} do not fit pictures of {tuple(images.shape[2:])}")


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images
