"""Fills: what a hidden part of a picture is replaced with.

What it is decides the answer (Sturmfels et al., "Visualizing the Impact of Feature Attribution Baselines",
Distill 2020): a blur leaves a smooth sky as it was.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from candling.vision.isolation.order import own_generator

__all__ = ["FILLS", "Fill", "blurred_fill", "box_mean", "donor_rows", "filled"]

Fill = Literal["blur", "mean", "fade", "noise"]
"""``blur``: a mean over a quarter of the side; ``mean``: over an eighth, which keeps the colours of a place;
``fade``: mid-grey; ``noise``: as much of it as the picture has contrast, around its own mean colour."""

FILLS: tuple[Fill, ...] = get_args(Fill)


def box_mean(images: Tensor, reach: int) -> Tensor:
    """Mean over squares of side 2·reach + 1, pictures (N, C, H, W) mirrored at their edges."""
    reach = min(reach, min(images.shape[2:]) - 1)
    if reach < 1:
        return images.clone()
    padded, side = F.pad(images, (reach, reach, reach, reach), mode="reflect"), 2 * reach + 1
    # Rows first, then columns: the same mean for a fraction of the sums.
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def blurred_fill(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] averaged over a quarter of their side: the fill without donors."""
    return box_mean(images, max(1, min(images.shape[2:]) // 8))


def filled(images: Tensor, fill: Fill) -> Tensor:
    """Replacements (N, C, H, W) in [0, 1] of whole pictures; see `Fill`."""
    if fill == "blur":
        return blurred_fill(images)
    if fill == "mean":
        return box_mean(images, max(1, min(images.shape[2:]) // 16))
    if fill == "fade":
        return torch.full_like(images, 0.5)
    return torch.stack([_noise(image) for image in images])


def _noise(image: Tensor) -> Tensor:
    """Noise that is the picture's own, whatever batch it is in."""
    drawn = torch.randn(image.shape, generator=own_generator(image, "fill", 0)).to(image)
    middle, contrast = image.mean((1, 2), keepdim=True), image.std((1, 2), keepdim=True)
    return (middle + contrast * drawn).clamp(0, 1)


def donor_rows(image: int, donors: int, per_image: int) -> list[int]:
    """Which donors an image uses: so spread that donors sorted by kind are used evenly."""
    count = min(per_image, donors)
    step = donors / count
    return [int(image + j * step) % donors for j in range(count)]
