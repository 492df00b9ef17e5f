"""Prototypes: inputs that maximise a class logit (activation maximisation, Erhan et al. 2009).

The image is a Fourier spectrum with decorrelated colours, seen by the model through random transforms (Olah
et al., "Feature Visualization", Distill 2017, sections "Preconditioning" and "Transformation robustness").
There are two parameterisations. ``maco`` fixes the magnitude of each frequency to that of the data, around
its mean picture, and optimises the phase alone (MACO, Fel et al. 2023, arXiv 2306.06805, section 3): nothing
can saturate, and what the model does not ask for stays noise with a natural spectrum. ``fourier`` starts from
next to nothing on the data's mean colour and lets magnitudes grow, scaled by the data's spectrum in all
directions alike: what the model does not ask for stays plain. Every (class, seed) row draws from a generator
of its own, so that a row does not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ModelError
from candling.models import batch_size, evaluating, logits, penultimate, probabilities

__all__ = [
    "FOURIER",
    "MACO",
    "Prior",
    "PrototypeSettings",
    "Prototypes",
    "fit_prior",
    "generate_prototypes",
    "object_similarity",
    "row_generator",
    "unseen_transforms",
]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prior:
    """What pictures of a data set look like before anything is known: a Gaussian in the Fourier domain.

    mean: (3, H, W) logits of RGB. colours: (3, 3) from decorrelated colours to logits of RGB.
    spectrum: (3, H, W // 2 + 1) root-mean-square magnitude of each frequency of each decorrelated colour.
    """

    mean: Tensor
    colours: Tensor
    spectrum: Tensor


@dataclass(frozen=True)
class PrototypeSettings:
    """How to optimise; `MACO` and `FOURIER` are what works for each parameterisation.

    Each row starts from the one of `starts` draws that climbed highest in `heat` steps and climbs for
    `steps` more. `learning_rate` is in radians of phase for ``maco``, in parts of the data's magnitudes for
    ``fourier``; `contrast` multiplies these: as they are for ``maco``, as they start for ``fourier``.
    `jitter` is in parts of the side, `scale` a relative range, `rotate` degrees.
    """

    parameterisation: Literal["maco", "fourier"] = "maco"
    seeds: int = 8
    steps: int = 160
    starts: int = 8
    heat: int = 8
    learning_rate: float = 0.15
    contrast: float = 0.7
    jitter: float = 0.06
    scale: float = 0.12
    rotate: float = 8.0


MACO = PrototypeSettings()
FOURIER = PrototypeSettings(
    parameterisation="fourier", seeds=4, steps=128, starts=1, learning_rate=0.05, contrast=0.05,
    jitter=0.08, scale=0.25, rotate=10.0,
)  # fmt: skip


@dataclass(frozen=True)
class Prototypes:
    """Rows of prototypes: class by class, seed by seed.

    images: float (R, 3, H, W) in [0, 1]. classes, seeds: (R,) int64. logits: (R, classes).
    probability: (R, T) of the own class under T unseen transforms.
    """

    images: Tensor
    classes: Tensor
    seeds: Tensor
    logits: Tensor
    probability: Tensor


def row_generator(*what: object) -> torch.Generator:
    """A generator seeded by what a row is (class, seed index, …) and by nothing else."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _logit(images: Tensor) -> Tensor:
    return torch.logit(images.clamp(0.02, 0.98))


def fit_prior(images: Tensor, empty: Tensor | None = None) -> Prior:
    """Fit mean, colours and spectrum of a data set.

    Parameters
    ----------
    images
        (N, 3, H, W), uint8 or float in [0, 1].
    empty
        The same without objects, where there is such a set: the mean is taken from it, so that no trace
        of an average object is in the prototypes to begin with.
    """

    def in_logits(pictures: Tensor) -> Tensor:
        return _logit(pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures)

    rgb = in_logits(images)
    mean = (rgb if empty is None else in_logits(empty)).mean(0)
    colours = (rgb - mean).permute(1, 0, 2, 3).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(colours))
    matrix = vectors * values.clamp_min(1e-6).sqrt()
    # eigh leaves the signs of the vectors open; the largest entry of each is made positive.
    matrix = matrix * matrix.gather(0, matrix.abs().argmax(0, keepdim=True)).sign()
    planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix).float(), rgb - mean)
    power = torch.fft.rfft2(planes, norm="ortho").abs().square().mean(0)
    # A picture and its mirror are equally likely.
    power = (power + torch.cat([power[:, :1], power[:, 1:].flip(1)], 1)) / 2
    # What is left at the highest frequencies is the sensor's noise, at all frequencies alike.
    floor = power.flatten(1).quantile(0.05, dim=1).view(3, 1, 1)
    return Prior(mean, matrix.float(), (power - floor).clamp_min(0).sqrt())


def _isotropic(prior: Prior) -> Prior:
    """The prior without places and directions: its mean colour, each frequency's magnitude over all angles.

    Roots of mean squares of rings; the axes of a spectrum hold the edges of pictures, which would be drawn.
    """
    height, width = prior.mean.shape[1:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    ring = ((rows.square() + columns.square()).sqrt() * max(height, width)).round().long().flatten()
    power = torch.zeros(3, int(ring.max()) + 1).index_add_(1, ring, prior.spectrum.square().flatten(1))
    ringed = (power / ring.bincount())[:, ring].view_as(prior.spectrum).sqrt()
    return Prior(prior.mean.mean((1, 2), keepdim=True).expand_as(prior.mean), prior.colours, ringed)


def _first_draws(count: int, prior: Prior, settings: PrototypeSettings, generator: torch.Generator) -> Tensor:
    """What `_render` renders, drawn: phases (count, 3, H, W // 2 + 1), or coefficients (…, 2)."""
    shape = (count, *prior.spectrum.shape)
    if settings.parameterisation == "maco":
        return 2 * torch.pi * torch.rand(shape, generator=generator)
    return settings.contrast * torch.randn(*shape, 2, generator=generator)


def _render(drawn: Tensor, prior: Prior, settings: PrototypeSettings) -> Tensor:
    """Images (R, 3, H, W) in [0, 1] of phases in radians, or of coefficients in parts of the spectrum."""
    if settings.parameterisation == "maco":
        waves = torch.polar((settings.contrast * prior.spectrum).expand(drawn.shape), drawn)
    else:
        waves = torch.view_as_complex(drawn) * prior.spectrum
    planes = torch.fft.irfft2(waves, s=prior.mean.shape[1:], norm="ortho")
    return torch.sigmoid(prior.mean + torch.einsum("ij,njhw->nihw", prior.colours, planes))


def _affine(images: Tensor, draws: Tensor, settings: PrototypeSettings) -> Tensor:
    """Rotate, scale and shift each row by its own draws (R, 4) in [-1, 1], edges reflected."""
    angle = torch.deg2rad(settings.rotate * draws[:, 0])
    factor = torch.exp(settings.scale * draws[:, 1])
    cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
    shift = 2 * settings.jitter * draws[:, 2:]
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def unseen_transforms(images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Images (R, 3, H, W) in [0, 1] under transforms that the optimiser never uses.

    Mirror, blur, noise, less contrast, darker, shear, coarser resolution.
    """
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device)
    kernel = (kernel[:, None] * kernel / 256).expand(3, 1, 5, 5)
    blurred = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
    # One noise for all rows, so that a row does not depend on its place in the batch.
    noise = torch.randn(images.shape[1:], generator=generator).to(images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    shear = torch.tensor([[1.0, 0.15, 0.0], [0.0, 1.0, 0.0]], device=images.device)
    grid = F.affine_grid(shear.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    sheared = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    coarse = F.interpolate(F.avg_pool2d(images, 2), size=images.shape[2:], mode="bilinear")
    return [
        images.flip(3),
        blurred,
        (images + 0.05 * noise).clamp(0, 1),
        mean + 0.7 * (images - mean),
        images * 0.8,
        sheared,
        coarse,
    ]


def _climb(
    model: nn.Module,
    drawn: Tensor,
    moves: Tensor,
    target: Tensor,
    prior: Prior,
    settings: PrototypeSettings,
    *,
    decay: bool,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Climb the target's logit from `drawn` (R, …) under `moves` (steps, R, 4).

    Returns what was drawn, moved, and the logits (R,) of the last step, as seen through its transforms.
    """
    drawn = drawn.clone().requires_grad_()
    optimiser = torch.optim.Adam([drawn], lr=settings.learning_rate, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(moves))
    score = torch.zeros(len(drawn))
    for move in moves:
        images = _affine(_render(drawn, prior, settings), move, settings)
        score = model(images.contiguous(memory_format=torch.channels_last)).gather(1, target[:, None])[:, 0]
        gradient = torch.autograd.grad(-score.sum(), drawn)[0] if score.requires_grad else None
        if gradient is None or not torch.isfinite(gradient).all():
            raise ModelError("the gradient of a class logit is NaN or does not reach the input")
        drawn.grad = gradient
        optimiser.step()
        if decay:
            rate.step()
        tick(len(drawn))
    return drawn.detach(), score.detach()


def generate_prototypes(
    model: nn.Module,
    classes: Sequence[int],
    prior: Prior,
    *,
    settings: PrototypeSettings | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Prototypes:
    """Optimise `settings.seeds` prototypes for each class, some rows at a time.

    Each row first runs heats: `settings.starts` draws climb for `settings.heat` steps and the highest goes
    on. A network that knows few backgrounds answers many pictures with no unit at all, and from there no
    gradient leads anywhere; a climb that got away is seen to within a few steps.

    Parameters
    ----------
    model
        Images (N, 3, H, W) in [0, 1] to logits; left as it was found.
    classes
        Logits to maximise.
    prior
        Statistics of the data, which also give the size (`fit_prior`).
    batch
        Rows at a time, None: as many as suit the device; the result does not depend on it beyond rounding.
    progress
        Told of forward and backward passes done, in images, and of how many there will be.

    Raises
    ------
    ModelError
        If the model's gradient is NaN or does not reach the input.
    """
    settings = settings or MACO
    rows = [(int(c), s) for c in classes for s in range(settings.seeds)]
    prior = prior if settings.parameterisation == "maco" else _isotropic(prior)
    device = next(model.parameters(), prior.mean).device
    prior = Prior(prior.mean.to(device), prior.colours.to(device), prior.spectrum.to(device))
    at_once = batch or batch_size(prior.mean.shape[1:], device, gradients=True)
    starts, heat = settings.starts, settings.heat
    total, done = len(rows) * ((starts * heat if starts > 1 else 0) + settings.steps), 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    def in_batches(drawn: Tensor, moves: Tensor, target: Tensor, *, decay: bool) -> tuple[Tensor, Tensor]:
        parts = [
            _climb(
                model, drawn[i : i + at_once].to(device), moves[:, i : i + at_once].to(device),
                target[i : i + at_once].to(device), prior, settings, decay=decay, tick=tick,
            )
            for i in range(0, len(drawn), at_once)
        ]  # fmt: skip
        return torch.cat([p for p, _ in parts]), torch.cat([s for _, s in parts])

    target = torch.tensor([c for c, _ in rows])
    chosen, draws = [], []
    with evaluating(model):
        for i, row in enumerate(rows):
            generator = row_generator("prototype", *row)
            drawn = _first_draws(starts, prior, settings, generator)
            if starts > 1:
                moves = 2 * torch.rand(heat, starts, 4, generator=generator) - 1
                drawn, score = in_batches(drawn, moves, target[i].expand(starts), decay=False)
                drawn = drawn[score.argmax()][None]
            chosen.append(drawn.cpu())
            draws.append(2 * torch.rand(settings.steps, 4, generator=generator) - 1)
        drawn, _ = in_batches(torch.cat(chosen), torch.stack(draws, 1), target, decay=True)
        final = _render(drawn, prior, settings)
    views = unseen_transforms(final, row_generator("unseen transforms"))
    column = target[:, None].to(device)
    probability = torch.cat(
        [probabilities(model, logits(model, view)).gather(1, column) for view in views], 1
    )
    return Prototypes(
        images=final.cpu(),
        classes=target,
        seeds=torch.tensor([s for _, s in rows]),
        logits=logits(model, final).cpu(),
        probability=probability.cpu(),
    )


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
