"""Random transforms that pictures are seen through while they climb, and others that are kept for a test.

A feature that only one exact arrangement of pixels excites does not survive a shift or a turn (Olah et al.,
"Feature Visualization", Distill 2017, section "Transformation robustness").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ROBUSTNESS", "Robustness", "move", "moves", "unseen_transforms"]


@dataclass(frozen=True)
class Robustness:
    """How far pictures are moved.

    pad: width of a margin of mid grey that the picture is shown in, in parts of its side; at 0 the picture
    goes on mirrored beyond its edges. jitter: longest shift, in parts of the side. scale: largest logarithm
    of a magnification. rotate: largest turn, in degrees.
    """

    pad: float = 0.0
    jitter: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0


ROBUSTNESS: dict[str, Robustness] = {
    "none": Robustness(),
    "s": Robustness(jitter=0.06, scale=0.12, rotate=8.0),
    "m": Robustness(jitter=0.08, scale=0.25, rotate=10.0),
    "l": Robustness(jitter=0.12, scale=0.35, rotate=18.0),
    "xl": Robustness(pad=0.06, jitter=0.16, scale=0.5, rotate=30.0),
}


def moves(generator: torch.Generator, steps: int) -> Tensor:
    """Draw what `move` makes of one picture in each of a number of steps: (steps, 4) in [-1, 1]."""
    return 2 * torch.rand(steps, 4, generator=generator) - 1


def move(images: Tensor, draws: Tensor, robustness: Robustness) -> Tensor:
    """Rotate, scale and shift each row by its own draws, all rows in one resampling.

    Parameters
    ----------
    images
        (R, C, H, W) in [0, 1].
    draws
        (R, 4) in [-1, 1]: turn, magnification, shift across, shift down, in parts of what `robustness`
        allows.
    robustness
        How far; without any, images are returned as they are.

    Returns
    -------
    Tensor
        (R, C, H, W) in [0, 1]; differentiable by images.
    """
    if robustness == Robustness():
        return images
    height, width = images.shape[2:]
    angle = torch.deg2rad(robustness.rotate * draws[:, 0])
    factor = torch.exp(robustness.scale * draws[:, 1]) / (1 + 2 * robustness.pad)
    cos, sin = torch.cos(angle) / factor, torch.sin(angle) / factor
    # Places run from -1 to 1 along both sides, whichever is longer, and a turn must not shear the picture.
    by_column = torch.stack([cos, sin * (width / height)], 1)
    by_row = torch.stack([-sin * (height / width), cos], 1)
    shift = 2 * robustness.jitter * draws[:, 2:]
    x = (2 * torch.arange(width, device=images.device, dtype=images.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=images.device, dtype=images.dtype) + 1) / height - 1
    # `F.affine_grid` in a tenth of its time: a pair (x, y) is added as one complex number.
    columns = torch.view_as_complex(x[:, None] * by_column[:, None])
    rows = torch.view_as_complex(torch.addcmul(shift[:, None], y[:, None], by_row[:, None]))
    grid = torch.view_as_real(rows[:, :, None] + columns[:, None])
    if robustness.pad:
        return F.grid_sample(images - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def unseen_transforms(images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Images (R, C, H, W) in [0, 1] under transforms that the optimiser never uses.

    Mirror, blur, noise, less contrast, darker, shear, coarser resolution.
    """
    channels = images.shape[1]
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device)
    kernel = (kernel[:, None] * kernel / 256).expand(channels, 1, 5, 5)
    blurred = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)
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
