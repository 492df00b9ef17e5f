"""The same thing at varying places: patches around peaks of evidence, held against each other.

Patches are compared by normalised cross-correlation over small shifts, so that a watermark is itself wherever
it lies and whatever is behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["correlations", "fine", "located", "patches_at", "peaks"]


_LEVEL = 2 / 255


def fine(images: Tensor, side: int) -> Tensor:
    """What images (N, C, H, W) have beyond the mean of the `side` pixels around, `side` odd.

    Skies and walls are alike by their slow shades alone.
    """
    around = F.pad(images, (side // 2,) * 4, mode="replicate")
    return images - F.avg_pool2d(around, side, 1)


def peaks(maps: Tensor, side: int) -> Tensor:
    """Upper left corners (M, 2) of the squares of `side` pixels with most positive evidence (M, H, W)."""
    sums = F.avg_pool2d(maps.clamp_min(0)[:, None], side, 1)[:, 0]
    best = sums.flatten(1).argmax(1)
    return torch.stack([best // sums.shape[2], best % sums.shape[2]], 1)


def patches_at(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Squares (M, C, side, side) of images (M, C, H, W) whose upper left corners (M, 2) are given."""
    return torch.stack(
        [
            image[:, top : top + side, left : left + side]
            for image, (top, left) in zip(images, corners.tolist(), strict=True)
        ]
    )


def correlations(templates: Tensor, windows: Tensor) -> Tensor:
    """Normalised cross-correlation of templates (T, C, s, s) at all places of windows (M, C, h, w).

    Returns
    -------
    Tensor
        (M, T, h - s + 1, w - s + 1) in [-1, 1]; 0 where a template or a place is of one colour.
    """
    area = templates.shape[2] * templates.shape[3]
    # Each channel on its own, or two flat places of one colour would be alike.
    centred = templates - templates.mean((2, 3), keepdim=True)
    norms = centred.flatten(1).norm(dim=1)
    products = F.conv2d(windows, centred)
    side = (templates.shape[2], templates.shape[3])
    means, squares = F.avg_pool2d(windows, side, 1), F.avg_pool2d(windows**2, side, 1)
    variance = (squares - means**2).clamp_min(0)
    spread = (variance.sum(1, keepdim=True) * area).sqrt()
    # Less than a level of 8 bits is no structure.
    flat = (spread < _LEVEL * area**0.5) | (norms < _LEVEL * area**0.5)[None, :, None, None]
    scale = (spread * norms[None, :, None, None]).clamp_min(1e-12)
    return torch.where(flat, 0.0, products / scale).clamp(-1, 1)


def located(template: Tensor, images: Tensor, *, batch: int = 64) -> tuple[Tensor, Tensor]:
    """Where images (N, C, H, W) match a template (C, s, s) best: corners (N, 2), correlations (N,)."""
    corners, found = [], []
    for part in images.split(batch):
        like = correlations(template[None], part)[:, 0]
        best, place = like.flatten(1).max(1)
        corners.append(torch.stack([place // like.shape[2], place % like.shape[2]], 1))
        found.append(best)
    return torch.cat(corners), torch.cat(found)
