"""What keeps pictures from being noise that a network happens to answer.

Each penalty is 1 for a photograph and 0 for plain mid grey, at every size: it is divided by what it would be
for a picture of `natural_prior` at that size, so that one weight does for all sizes. Penalties of rows do
not depend on other rows, but for `diversity`.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import ParamsError
from candling.vision.priors import mirrored, natural_prior

__all__ = ["blur", "diversity", "high_frequency", "l1", "l2", "total_variation"]

# Standard deviation of the pixels of photographs, and of pictures drawn from `natural_prior`, in RGB.
_CONTRAST = 0.22

# Mean magnitude of a normal variable of standard deviation 1.
_MEAN_MAGNITUDE = math.sqrt(2 / math.pi)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, over that of a photograph of this size.

    Parameters
    ----------
    images
        (R, C, H, W) in [0, 1], H and W at least 2.

    Returns
    -------
    Tensor
        (R,) from 0; linear in the contrast.

    Raises
    ------
    ParamsError
        If the images have no neighbouring pixels.
    """
    down, across = _natural_steps(_checked(images))
    vertical = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((1, 2, 3))
    horizontal = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    return (vertical + horizontal) / (_CONTRAST * _MEAN_MAGNITUDE * (down + across))


def high_frequency(images: Tensor) -> Tensor:
    """Power above half the highest frequency, over that of a photograph of this size.

    Parameters
    ----------
    images
        (R, C, H, W) in [0, 1], H and W at least 2; edges that do not meet on the other side count.

    Returns
    -------
    Tensor
        (R,) from 0; quadratic in the contrast.

    Raises
    ------
    ParamsError
        If the images have no neighbouring pixels.
    """
    weights = _high(_checked(images)).to(images.device, images.dtype)
    waves = torch.view_as_real(torch.fft.rfft2(images, norm="ortho"))
    return (waves.square().sum(-1) * weights).sum((2, 3)).mean(1)


def l1(images: Tensor) -> Tensor:
    """Mean absolute deviation from mid grey, over that of photographs: (R, C, H, W) in [0, 1] to (R,)."""
    return (images - 0.5).abs().mean((1, 2, 3)) / (_CONTRAST * _MEAN_MAGNITUDE)


def l2(images: Tensor) -> Tensor:
    """Mean squared deviation from mid grey, over that of photographs: (R, C, H, W) in [0, 1] to (R,)."""
    return (images - 0.5).square().mean((1, 2, 3)) / _CONTRAST**2


def blur(planes: Tensor, sigma: float) -> Tensor:
    """Smooth images, or steps of pixels, by a Gaussian; edges mirrored.

    Parameters
    ----------
    planes
        (R, C, H, W).
    sigma
        Standard deviation in parts of the longer side, the same for all sizes; 0 leaves planes as they are.

    Returns
    -------
    Tensor
        (R, C, H, W); differentiable.

    Raises
    ------
    ParamsError
        If `sigma` is negative.
    """
    if sigma < 0:
        raise ParamsError(f"a blur of {sigma} of the side is none: give 0 or more")
    if sigma == 0:
        return planes
    height, width = planes.shape[2:]
    pixels = sigma * max(height, width)
    down, across = (_gaussian(n, pixels).to(planes.device, planes.dtype) for n in (height, width))
    return down @ planes @ across.T


def diversity(features: Tensor, groups: Tensor) -> Tensor:
    """How alike rows of the same group are: mean cosine similarity to the others (Distill 2017, "Diversity").

    Parameters
    ----------
    features
        (R, D) as they are; (R, C, h, w) as products of channels over places, (R, T, D) of units over tokens,
        which say what is there and not where.
    groups
        (R,) whole numbers: the class or objective of each row.

    Returns
    -------
    Tensor
        (R,) in [-1, 1]; 0 for a row alone in its group. Its gradient reaches the others too.
    """
    if features.ndim == 4:
        places = features.flatten(2)
        features = places @ places.transpose(1, 2)
    elif features.ndim == 3:
        features = features.transpose(1, 2) @ features
    unit = F.normalize(features.flatten(1), dim=1)
    others = (groups[:, None] == groups) & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    return (unit @ unit.T * others).sum(1) / others.sum(1).clamp_min(1)


def _checked(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[2:]
    if min(height, width) < 2:
        raise ParamsError(f"images of {height} x {width} pixels have no neighbours: give 2 x 2 or more")
    return height, width


@functools.lru_cache
def _gaussian(side: int, pixels: float) -> Tensor:
    """Matrix (side, side) that smooths a line of pixels, mirrored at its ends.

    On lines this short a product of matrices takes a third of a convolution's time.
    """
    radius = math.ceil(3 * pixels)
    distance = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (distance / pixels).square())
    # Mirrored about the middle of the last pixel: there and back is twice the length less two.
    period = max(1, 2 * side - 2)
    place = (torch.arange(side)[:, None] + distance) % period
    place = torch.minimum(place, period - place) if side > 1 else torch.zeros_like(place)
    return torch.zeros(side, side).scatter_add_(1, place, (kernel / kernel.sum()).expand(place.shape))


@functools.lru_cache
def _natural_power(size: tuple[int, int]) -> Tensor:
    """Share (H, W // 2 + 1) of each frequency, with its mirror, in the variance of a natural picture."""
    return mirrored(size[1]) * natural_prior(size, 1).spectrum[0].square() / (size[0] * size[1])


@functools.lru_cache
def _natural_steps(size: tuple[int, int]) -> tuple[float, float]:
    """Standard deviation of differences of neighbours, down and across, where that of pixels is 1."""
    power = _natural_power(size)
    # The difference of two neighbours multiplies a wave by 2 sin(pi f).
    down = 4 * torch.sin(torch.pi * torch.fft.fftfreq(size[0])).square()[:, None]
    across = 4 * torch.sin(torch.pi * torch.fft.rfftfreq(size[1])).square()
    return float((down * power).sum().sqrt()), float((across * power).sum().sqrt())


@functools.lru_cache
def _high(size: tuple[int, int]) -> Tensor:
    """What a unit of power (H, W // 2 + 1) costs: nothing up to half the highest frequency."""
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    above = (rows.square() + columns.square()).sqrt() > 0.25
    natural = _CONTRAST**2 * _natural_power(size)[above].sum() * (size[0] * size[1])
    weights: Tensor = mirrored(size[1]) * above / natural
    return weights
