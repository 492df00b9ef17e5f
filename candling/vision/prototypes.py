"""Prototypes: inputs that maximise a class logit (activation maximisation, Erhan et al. 2009).

Many rows, one for each class and seed, climb side by side (`candling.vision.climbing`) in one of the
parameterisations of `candling.vision.parameterisations`, seen by the model through random transforms. What is
measured of them is measured on the pictures as they are saved, with eight bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.models import logits, penultimate, probabilities
from candling.vision.climbing import FOURIER, MACO, Climb, Climbed, Progress, Row, row_generator
from candling.vision.kept import climb_kept
from candling.vision.objectives import logit
from candling.vision.priors import Prior, fit_prior
from candling.vision.transforms import unseen_transforms

__all__ = [
    "FOURIER",
    "MACO",
    "Climb",
    "Prior",
    "Prototypes",
    "fit_prior",
    "generate_prototypes",
    "object_similarity",
    "over_grey",
    "unseen_probabilities",
]

_AT_ONCE = 64  # pictures that are transformed together


@dataclass(frozen=True)
class Prototypes:
    """Rows of prototypes: class by class, seed by seed.

    images: uint8 (R, C, H, W), with alpha (R, C + 1, H, W). classes, seeds, steps: (R,) int64; steps are
    those that a row took. logits: (R, classes). probability: (R, T) of the own class under T
    unseen transforms.
    """

    images: Tensor
    classes: Tensor
    seeds: Tensor
    steps: Tensor
    logits: Tensor
    probability: Tensor


def unseen_probabilities(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """Probability (R, T) of each picture's class under T transforms that no optimiser uses.

    Parameters
    ----------
    images
        (R, C, H, W), uint8 or float in [0, 1].
    classes
        (R,) int64.
    """
    parts = []
    for some, own in zip(images.split(_AT_ONCE), classes.split(_AT_ONCE), strict=True):
        unit = some.float() / 255 if some.dtype == torch.uint8 else some
        views = unseen_transforms(unit, row_generator("unseen transforms"))
        column = own[:, None].to(images.device)
        shares = [probabilities(model, logits(model, view)).gather(1, column) for view in views]
        parts.append(torch.cat(shares, 1))
    return torch.cat(parts)


def generate_prototypes(
    model: nn.Module,
    classes: Sequence[int],
    prior: Prior,
    *,
    settings: Climb | None = None,
    start: Tensor | None = None,
    batch: int | None = None,
    folder: Path | None = None,
    finished: Callable[[int, Climbed, bool], None] | None = None,
    progress: Progress | None = None,
) -> Prototypes:
    """Make `settings.seeds` prototypes of each class, some rows at a time.

    Parameters
    ----------
    model
        Images (N, C, H, W) in [0, 1] to logits; left as it was found.
    classes
        Logits to maximise.
    prior
        Statistics of the data, which also give the size: `fit_prior`, or `natural_prior` of `priors`.
    start
        A picture (C, H, W) in [0, 1] or uint8 that every row starts from; None: noise.
    batch
        Rows at a time, None: as many as suit the device; the result does not depend on it, see `climb`.
    folder
        Where finished rows are kept, so that a run that was interrupted goes on where it was; rows of another
        model, prior or other settings are not taken for these. None: nowhere.
    finished
        Told of each row: its place, what became of it, and whether it was in the folder.
    progress
        Told of forward and backward passes done, in images, and of how many there will be at most.

    Raises
    ------
    ModelError
        If the model's gradient is NaN or does not reach the input.
    """
    settings = settings or FOURIER
    numbers = range(settings.first, settings.first + settings.seeds)
    rows = [Row(logit(int(c)), s) for c in classes for s in numbers]
    found = climb_kept(
        model, rows, prior, settings,
        start=start, batch=batch, folder=folder, finished=finished, progress=progress,
    )  # fmt: skip
    device = next(model.parameters(), prior.mean).device
    images = torch.stack([row.image for row in found])
    target = torch.tensor([int(c) for c in classes for _ in range(settings.seeds)])
    # What is opaque is what the model is asked about; behind the rest is mid grey.
    opaque = over_grey(images) if settings.alpha else images
    parts = opaque.split(_AT_ONCE)
    return Prototypes(
        images=images,
        classes=target,
        seeds=torch.tensor([row.seed for row in rows]),
        steps=torch.tensor([row.steps for row in found]),
        logits=torch.cat([logits(model, part.to(device)).cpu() for part in parts]),
        probability=unseen_probabilities(model, opaque.to(device), target).cpu(),
    )


def over_grey(images: Tensor) -> Tensor:
    """Pictures with opacity (R, C + 1, H, W) before mid grey, (R, C, H, W), both uint8."""
    opacity = images[:, -1:].float() / 255
    return (images[:, :-1].float() * opacity + 127.5 * (1 - opacity)).round().to(torch.uint8)


def object_similarity(model: nn.Module, prototypes: Tensor, pictures: Tensor, empty: Tensor) -> Tensor:
    """How much more prototypes resemble the object on a background than that background empty.

    Cosine similarity of penultimate features, centred on the mean over `pictures` and `empty`:
    absolute similarities mislead, since the prototype of a sky resembles every picture with that sky.

    Parameters
    ----------
    prototypes, pictures, empty
        Images (R, 3, H, W), (N, 3, H, W) and (N, 3, H, W); `empty` shows `pictures` without the object.

    Returns
    -------
    Tensor
        (R,) difference of mean cosines, in [-2, 2].
    """
    with_object, without = penultimate(model, pictures), penultimate(model, empty)
    centre = torch.cat([with_object, without]).mean(0)

    def unit(features: Tensor) -> Tensor:
        return F.normalize(features - centre, dim=1)

    rows = unit(penultimate(model, prototypes))
    return rows @ unit(with_object).mean(0) - rows @ unit(without).mean(0)
