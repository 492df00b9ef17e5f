"""Factors of a picture that are not places, each as a pure change with a dose, and a way to measure it.

All take float images (N, 3, H, W) in [0, 1] and one dose a picture, (N,), and return images of the same shape
in [0, 1]; a dose of 0 returns the picture itself. Luma is that of Pillow's grey: Rec. ITU-R BT.601.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "FACTORS",
    "Factor",
    "brightness",
    "cast",
    "contrast",
    "hue",
    "luma",
    "resolution",
    "saturation",
    "sharpness",
    "shuffled",
    "silhouette",
    "warmth",
]

_FAINT = 0.005  # of white; keeps logarithms of black and of flat pictures finite
_REACH = 64  # pixels: what a dose of sharpness is relative to


def luma(images: Tensor) -> Tensor:
    """Grey (N, 1, H, W) of RGB images (N, 3, H, W), as Pillow's mode "L" weighs it."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def _each(dose: Tensor, images: Tensor) -> Tensor:
    return dose.to(images).view(-1, 1, 1, 1)


def _kept(images: Tensor, changed: Tensor, dose: Tensor) -> Tensor:
    """The picture itself, bit for bit, where the dose is 0."""
    return torch.where(_each(dose, images) == 0, images, changed.clamp(0, 1))


# -- Changes ---------------------------------------------------------------------------------------------


def hue(images: Tensor, dose: Tensor) -> Tensor:
    """Hues turned in HSV by `dose` turns; 1/3 takes red to green."""
    most, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = most - least
    red, green, blue = images.split(1, 1)
    safe = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        most == red,
        (green - blue) / safe,
        torch.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + 6 * _each(dose, images)
    # Each channel is full within a sixth of a turn of its own hue, and falls to none within the next.
    offsets = torch.tensor([0.0, 2.0, 4.0], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    away = torch.remainder(turned - offsets + 3, 6) - 3
    return _kept(images, least + chroma * (2 - away.abs()).clamp(0, 1), dose)


def saturation(images: Tensor, dose: Tensor) -> Tensor:
    """Colours drawn apart from their grey by e^dose (Pillow's `ImageEnhance.Color`)."""
    grey = luma(images)
    return _kept(images, grey + _each(dose, images).exp() * (images - grey), dose)


def brightness(images: Tensor, dose: Tensor) -> Tensor:
    """All channels times e^dose, as by a longer exposure (Pillow's `ImageEnhance.Brightness`)."""
    return _kept(images, images * _each(dose, images).exp(), dose)


def contrast(images: Tensor, dose: Tensor) -> Tensor:
    """Pixels drawn apart from the picture's mean grey by e^dose (Pillow's `ImageEnhance.Contrast`)."""
    middle = luma(images).mean((1, 2, 3), keepdim=True)
    return _kept(images, middle + _each(dose, images).exp() * (images - middle), dose)


def warmth(images: Tensor, dose: Tensor) -> Tensor:
    """A cast from blue (dose < 0) to amber: red over blue grows by e^dose, the mean grey stays."""
    return _gained(images, dose, (0.5, 0.0, -0.5))


def cast(images: Tensor, dose: Tensor) -> Tensor:
    """A cast from magenta (dose < 0) to green: green over the others grows by e^dose, the mean grey stays."""
    return _gained(images, dose, (-1 / 3, 2 / 3, -1 / 3))


def _gained(images: Tensor, dose: Tensor, shares: tuple[float, float, float]) -> Tensor:
    powers = torch.tensor(shares, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    gained = images * (powers * _each(dose, images)).exp()
    before, after = (luma(one).mean((1, 2, 3), keepdim=True) for one in (images, gained))
    return _kept(images, gained * before / after.clamp_min(1e-12), dose)


def sharpness(images: Tensor, dose: Tensor) -> Tensor:
    """Blurred (dose < 0) or sharpened by unsharp masking.

    A blur's standard deviation is -`dose` pixels of a picture of 64, and grows with the shorter side. A dose
    above 0 adds `dose` times what a blur of one such pixel takes away.
    """
    unit = min(images.shape[2:]) / _REACH
    sigma = torch.where(dose < 0, -dose, 1.0) * unit
    soft = _blurred(images, sigma)
    strength = _each(dose.clamp_min(0), images)
    return _kept(
        images, torch.where(_each(dose, images) < 0, soft, images + strength * (images - soft)), dose
    )


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with one standard deviation (N,) in pixels a picture; edges are mirrored."""
    count, channels, height, width = images.shape
    radius = max(1, min(math.ceil(3 * float(sigma.max())), min(height, width) - 1))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    spread = sigma.to(images).clamp_min(1e-3)[:, None]
    weights = torch.exp(-0.5 * (offsets / spread).square())
    # Each kernel ends where it would alone, whatever the widest of the batch.
    weights = weights * (offsets.abs() <= (3 * spread).ceil())
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = images.reshape(1, count * channels, height, width)
    planes = F.conv2d(
        F.pad(planes, (radius, radius, 0, 0), mode="reflect"),
        weights[:, None, None, :],
        groups=len(weights),
    )
    planes = F.conv2d(
        F.pad(planes, (0, 0, radius, radius), mode="reflect"),
        weights[:, None, :, None],
        groups=len(weights),
    )
    return planes.view_as(images)


def resolution(images: Tensor, dose: Tensor) -> Tensor:
    """As from an original 2^dose as large, dose <= 0: reduced and enlarged again, bilinearly."""
    size = images.shape[2:]
    out = images.clone()
    for row, one in enumerate(dose.tolist()):
        if one < 0:
            small = [max(1, round(side * 2**one)) for side in size]
            reduced = F.interpolate(
                images[row : row + 1], small, mode="bilinear", antialias=True, align_corners=False
            )
            out[row] = F.interpolate(reduced, size, mode="bilinear", align_corners=False)[0]
    return _kept(images, out, dose)


def shuffled(images: Tensor, tiles: int, generator: torch.Generator) -> Tensor:
    """Each picture's tiles × tiles tiles in a random order of its own: no shape is left, the texture is.

    Sides that `tiles` does not divide keep a strip at the bottom and the right as it was.
    """
    count, channels, height, width = images.shape
    high, wide = height // tiles, width // tiles
    cut = images[:, :, : high * tiles, : wide * tiles]
    cells = cut.reshape(count, channels, tiles, high, tiles, wide).permute(0, 2, 4, 1, 3, 5)
    cells = cells.reshape(count, tiles * tiles, channels, high, wide)
    order = torch.rand(count, tiles * tiles, generator=generator).argsort(1).to(images.device)
    cells = cells[torch.arange(count, device=images.device)[:, None], order]
    cells = cells.view(count, tiles, tiles, channels, high, wide).permute(0, 3, 1, 4, 2, 5)
    out = images.clone()
    out[:, :, : high * tiles, : wide * tiles] = cells.reshape(cut.shape)
    return out


def silhouette(images: Tensor, masks: Tensor, dose: Tensor) -> Tensor:
    """Objects (masks bool (N, H, W)) drawn towards their mean colour by a share `dose` in [0, 1]."""
    inside = masks[:, None].to(images)
    middle = (images * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp_min(1)
    share = _each(dose, images) * inside
    return _kept(images, (1 - share) * images + share * middle, dose)


# -- Measures --------------------------------------------------------------------------------------------


def _chroma(images: Tensor) -> tuple[Tensor, Tensor]:
    red, green, blue = images.unbind(1)
    return red - (green + blue) / 2, math.sqrt(0.75) * (green - blue)


def _hue_of(images: Tensor) -> Tensor:
    """Turns in [0, 1): the direction of the mean chroma."""
    along, across = (plane.mean((1, 2)) for plane in _chroma(images))
    return torch.remainder(torch.atan2(across, along) / (2 * math.pi), 1)


def _saturation_of(images: Tensor) -> Tensor:
    along, across = _chroma(images)
    return _ratio(torch.hypot(along, across).mean((1, 2)), luma(images).mean((1, 2, 3)))


def _brightness_of(images: Tensor) -> Tensor:
    return (luma(images).mean((1, 2, 3)) + _FAINT).log()


def _contrast_of(images: Tensor) -> Tensor:
    grey = luma(images)
    return _ratio(grey.std((1, 2, 3)), grey.mean((1, 2, 3)))


def _warmth_of(images: Tensor) -> Tensor:
    red, _, blue = images.mean((2, 3)).unbind(1)
    return _ratio(red, blue)


def _cast_of(images: Tensor) -> Tensor:
    red, green, blue = (images.mean((2, 3)) + _FAINT).log().unbind(1)
    return green - (red + blue) / 2


def _sharpness_of(images: Tensor) -> Tensor:
    grey = luma(images)
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return _ratio(F.conv2d(grey, kernel).abs().mean((1, 2, 3)), grey.std((1, 2, 3)))


def _resolution_of(images: Tensor) -> Tensor:
    """How much of the picture the finest octave is."""
    grey = luma(images)
    half = [max(1, side // 2) for side in grey.shape[2:]]
    coarse = F.interpolate(grey, half, mode="bilinear", antialias=True, align_corners=False)
    fine = grey - F.interpolate(coarse, grey.shape[2:], mode="bilinear", align_corners=False)
    return _ratio(fine.square().mean((1, 2, 3)).sqrt(), grey.std((1, 2, 3)))


def _ratio(upper: Tensor, lower: Tensor) -> Tensor:
    return ((upper + _FAINT) / (lower + _FAINT)).log()


@dataclass(frozen=True)
class Factor:
    """Something about a whole picture that can be changed and measured.

    name: of the probe. family: what a person calls it; probes of one family are two sides of one thing: two
    colour casts, and a blur and a small original, between which no network that learnt from either was seen
    to make a difference.
    apply, measure: see this module. least, most: doses beyond which pictures are no longer ordinary.
    circular: the measure is in turns, and a dose turns it.
    """

    name: str
    family: str
    raised: str
    lowered: str
    apply: Callable[[Tensor, Tensor], Tensor]
    measure: Callable[[Tensor], Tensor]
    least: float
    most: float
    circular: bool = False


FACTORS: dict[str, Factor] = {
    factor.name: factor
    for factor in (
        Factor("hue", "hue", "turning hues forward", "turning hues back", hue, _hue_of, -0.15, 0.15, True),
        Factor("warmth", "tint", "an amber cast", "a blue cast", warmth, _warmth_of, -1.2, 1.2),
        Factor("cast", "tint", "a green cast", "a magenta cast", cast, _cast_of, -0.9, 0.9),
        Factor(
            "saturation", "saturation", "more colour", "less colour", saturation, _saturation_of, -3.0, 1.1
        ),
        Factor(
            "brightness", "brightness", "a brighter picture", "a darker picture",
            brightness, _brightness_of, -1.1, 1.1,
        ),
        Factor(
            "contrast", "contrast", "more contrast", "less contrast", contrast, _contrast_of, -1.4, 1.1
        ),
        Factor(
            "sharpness", "sharpness", "a sharper picture", "a blurred picture",
            sharpness, _sharpness_of, -3.0, 4.0,
        ),
        Factor(
            "resolution", "sharpness", "a larger original", "a smaller original",
            resolution, _resolution_of, -2.5, 0.0,
        ),
    )
}  # fmt: skip
"""By name, in the order in which they are tested."""
