"""Dose and response: what a prediction does as one factor of a picture is raised, beside a placebo.

A dose is not a number of the factor's own but a place in the range that the pictures themselves show: each
picture is brought to the value that a given share of the pictures lies below. So pictures stay ordinary,
factors can be compared, and it does not count as evidence that a picture made black is called something else.
Between the lowest and the highest dose nothing differs but the factor, and all pictures have the same value
of it; if predictions still go one way, the factor moves them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candling.data import unit
from candling.errors import DataError, ParamsError
from candling.vision.factors.describing import DESCRIBED, TILES, silhouette_told, texture_told
from candling.vision.factors.doses import changed, doses_of, measured, targets_of
from candling.vision.factors.judging import UNSEEN, judged, of_the_object, strongest, untested
from candling.vision.factors.placebo import rms
from candling.vision.factors.results import DoseSettings, FactorTest, Point, Region
from candling.vision.factors.transforms import FACTORS, Factor
from candling.vision.factors.trial import Trial, Tried

__all__ = ["dose_response", "evaluations"]

_PART_LEVELS = 2  # of an object or a background alone: the lowest and the highest


def evaluations(
    count: int,
    *,
    masks: bool = False,
    names: Sequence[str] | None = None,
    parts: Sequence[Region] | None = None,
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
    doses = [len(settings.levels) if part == "whole" else _PART_LEVELS for part in _parts(parts, masks)]
    each = sum(dose + 2 for dose in doses) * sum(name in FACTORS for name in chosen)
    described = 2 * len(TILES) * ("texture" in chosen) + 2 * ("silhouette" in chosen)
    return n * (1 + each + described)


def dose_response(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    masks: Tensor | None = None,
    sources: Sequence[Hashable] | None = None,
    like_train: tuple[Tensor, Tensor] | None = None,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    parts: Sequence[Region] | None = None,
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
    groups
        N, environments or slices, in each of which objects must differ for an insight; None: all are one.
    classes
        Names for the sentences.
    names
        Of `FACTORS`, "texture" and "silhouette" (which needs masks); None: all that can be had.
    parts
        Of the picture: "whole", and with masks "object" and "background"; None: all that can be had.
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
        If a name is not known, or "silhouette" or a part is asked for without masks.
    """
    settings = settings or DoseSettings()
    chosen = _names(names, masks is not None)
    _check(images, labels, masks, sources, groups)
    if like_train is not None:
        _check(like_train[0], like_train[1])
    origins: list[Hashable] = [*range(len(images))] if sources is None else list(sources)
    rows = np.sort(np.random.default_rng(settings.seed).permutation(len(images))[: settings.images])
    taken = torch.as_tensor(rows)
    origins = [origins[row] for row in rows]
    trial = Trial(
        model,
        unit(images[taken]),
        None if masks is None else masks[taken] > 0,
        origins,
        rows.tolist(),
        settings,
        batch,
        classes,
    )
    have = len(set(origins))
    regions = _parts(parts, masks is not None)
    if have < settings.least_sources:
        why = f"{have} independent pictures are fewer than the {settings.least_sources} that a test takes"
        return [
            untested(name, region, why)
            for name in chosen
            for region in (regions if name in FACTORS else ("whole",))
        ]
    trial.ask()
    here = None if labels is None else labels[taken].cpu().numpy()
    inside = None if groups is None else [groups[row] for row in rows]
    found: list[FactorTest] = []
    tried: dict[str, Tried] = {}
    factors = [FACTORS[name] for name in chosen if name in FACTORS]
    confidence = 1 - (1 - settings.confidence) / max(1, len(factors) * len(regions))
    for factor in factors:
        tests, made = _try(trial, factor, regions, confidence, here, like_train)
        found += of_the_object(trial, factor, tests, here, inside)
        tried |= {test.slug: one for test, one in zip(tests, made, strict=False)}
    found = strongest(found, tried)
    if "texture" in chosen:
        found.append(texture_told(trial))
    if "silhouette" in chosen:
        found.append(silhouette_told(trial))
    return found


def _try(
    trial: Trial,
    factor: Factor,
    regions: Sequence[Region],
    confidence: float,
    here: NDArray[np.int64] | None,
    like_train: tuple[Tensor, Tensor] | None,
) -> tuple[list[FactorTest], list[Tried]]:
    """The tests of one factor on all regions."""
    settings = trial.settings
    values = measured(factor, trial.images)
    others = None if like_train is None else measured(factor, like_train[0])
    centre, targets = targets_of(factor, values, others, settings.levels)
    span = float(targets[-1] - targets[0])
    doses = doses_of(factor, trial.images, values, centre, targets)
    whole = [changed(factor, trial.images, dose) for dose in doses]
    if max(float(rms(one - trial.images).mean()) for one in (whole[0], whole[-1])) < UNSEEN:
        why = f"the pictures do not differ in {factor.family}"
        return [untested(factor.name, region, why) for region in regions], []
    tests, made = [], []
    for region in regions:
        keep, weights = trial.part(region)
        sources = [trial.sources[i] for i in keep.tolist()]
        if len(set(sources)) < settings.least_sources:
            have = len(set(sources))
            why = f"{have} independent pictures with an object are fewer than {settings.least_sources}"
            tests.append(untested(factor.name, region, why))
            continue
        levels = range(len(targets)) if weights is None else (0, len(targets) - 1)
        images = trial.images[keep]
        made_of = [
            whole[level] if weights is None else torch.lerp(images, whole[level][keep], weights)
            for level in levels
        ]
        answers = [trial.answers(one) for one in made_of]
        ends = [
            trial.answers(trial.placebo(made_of[place], f"{factor.name} {end}", keep, weights))
            for place, end in ((0, "low"), (-1, "high"))
        ]
        if weights is None:
            made.append(Tried(factor, made_of[0], made_of[-1], span))
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
            for level, one, answer in zip(levels, made_of, answers, strict=True)
        ]
        known = None if here is None else here[keep.numpy()]
        both = (
            (values[keep.numpy()], known),
            None if others is None or like_train is None else (others, like_train[1].cpu().numpy()),
        )
        tests.append(judged(trial, factor, region, keep, sources, points, answers, ends, confidence, both))
    return tests, made


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


def _parts(parts: Sequence[Region] | None, masks: bool) -> tuple[Region, ...]:
    known: tuple[Region, ...] = ("whole", "object", "background") if masks else ("whole",)
    if parts is None:
        return known
    for part in parts:
        if part not in known:
            raise ParamsError(f"part {part!r} is not {' or '.join(known)}; others need masks of the objects")
    return tuple(part for part in known if part in parts)


def _check(
    images: Tensor,
    labels: Tensor | None,
    masks: Tensor | None = None,
    sources: Sequence[Hashable] | None = None,
    groups: Sequence[str] | None = None,
) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise DataError(f"pictures must be (N, 3, H, W) and at least one, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise DataError(f"pictures must be uint8, or float in [0, 1], got {images.dtype}")
        if not bool((images >= 0).all() and (images <= 1).all()):
            raise DataError("pictures must lie in [0, 1] and have no NaN")
    for name, given in (("labels", labels), ("masks", masks), ("sources", sources), ("groups", groups)):
        if given is not None and len(given) != len(images):
            raise DataError(f"{len(images)} pictures need as many {name}, got {len(given)}")
    if masks is not None and masks.shape[1:] != images.shape[2:]:
        raise DataError(f"masks of {tuple(masks.shape[1:])} do not fit pictures of {tuple(images.shape[2:])}")
