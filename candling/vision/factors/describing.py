"""Texture and silhouette: changes so large that only what they do is told, and nothing concluded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from candling.statistics import Estimate
from candling.vision.factors.directions import mean_by_source
from candling.vision.factors.doses import Array
from candling.vision.factors.judging import untested
from candling.vision.factors.placebo import rms
from candling.vision.factors.results import FactorTest, Point, Region
from candling.vision.factors.transforms import shuffled, silhouette
from candling.vision.factors.trial import Trial

__all__ = ["DESCRIBED", "TILES", "silhouette_told", "texture_told"]

DESCRIBED = ("texture", "silhouette")
TILES = (2, 4, 8)


def texture_told(trial: Trial) -> FactorTest:
    settings, keep = trial.settings, torch.arange(len(trial.images))
    made = []
    for tiles in TILES:
        parts = []
        for row, image in zip(trial.rows, trial.images, strict=True):
            generator = torch.Generator().manual_seed(1_000_003 * settings.seed + 31 * row + tiles)
            parts.append(shuffled(image[None], min(tiles, *image.shape[1:]), generator))
        made.append((float(tiles), torch.cat(parts)))
    return _told(
        trial, "texture", "whole", keep, None, made,
        "With {dose:.0f} × {dose:.0f} tiles of each picture shuffled, which leaves texture and no shape",
    )  # fmt: skip


def silhouette_told(trial: Trial) -> FactorTest:
    keep, weights = trial.part("object")
    sources = {trial.sources[i] for i in keep.tolist()}
    if trial.masks is None or len(sources) < trial.settings.least_sources:
        why = f"{len(sources)} independent pictures with an object are too few"
        return untested("silhouette", "whole", why)
    images = trial.images[keep]
    flat = silhouette(images, trial.masks[keep], torch.ones(len(images)))
    return _told(
        trial, "silhouette", "whole", keep, weights, [(1.0, flat)],
        "With the object filled with its mean colour, which leaves its outline",
    )  # fmt: skip


def _told(
    trial: Trial,
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
