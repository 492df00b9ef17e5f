"""Models that read one thing by construction, and pictures for them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32
CORNER = (slice(0, 8), slice(0, 8))
CENTRE = (slice(10, 22), slice(10, 22))


class Reads(nn.Module):
    """Class 0 where a region is redder than blue on average, else class 1."""

    weights: Tensor

    def __init__(self, region: Tensor, gain: float = 40.0) -> None:
        super().__init__()
        self.register_buffer("weights", region.float() / region.sum())
        self.gain = gain
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        redness = ((images[:, 0] - images[:, 2]) * self.weights).sum((1, 2)) * self.gain
        return torch.stack([redness, -redness], 1)


class Matches(nn.Module):
    """Class 0 where a glyph is anywhere in the picture, else class 1."""

    glyph: Tensor

    def __init__(self, glyph: Tensor) -> None:
        super().__init__()
        self.register_buffer("glyph", (glyph - glyph.mean())[None, None])

    def forward(self, images: Tensor) -> Tensor:
        norm = (self.glyph**2).sum()
        found = F.conv2d(images.mean(1, keepdim=True), self.glyph).flatten(1).amax(1) / norm
        return torch.stack([20 * (found - 0.5), -20 * (found - 0.5)], 1)


def region(*where: tuple[slice, slice]) -> Tensor:
    """bool (SIDE, SIDE), True at the given rows and columns."""
    found = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for rows, columns in where:
        found[rows, columns] = True
    return found


def border(width: int = 3) -> Tensor:
    found = torch.ones(SIDE, SIDE, dtype=torch.bool)
    found[width:-width, width:-width] = False
    return found


def smooth(seed: int, count: int = 120) -> Tensor:
    """Blotches of colour, float (N, 3, SIDE, SIDE) in [0, 1], different everywhere."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return 0.8 * F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False) + 0.2 * fine


def evidence(where: Tensor, count: int, seed: int = 0) -> Tensor:
    """Maps (N, H, W) with evidence at a region, (H, W) or (N, H, W), and a little everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return where.float().expand(count, -1, -1) + 0.05 * torch.rand(count, SIDE, SIDE, generator=generator)


def glyph() -> Tensor:
    """Strokes float (7, 7) in [0, 1]."""
    found = torch.zeros(7, 7)
    found[torch.arange(7), torch.arange(7)] = 1
    found[torch.arange(7), 6 - torch.arange(7)] = 1
    found[3] = 1
    return found


def stamped(images: Tensor, rows: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures with the glyph in each channel of some, and where it is, bool (N, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * images
    where = torch.zeros(len(images), SIDE, SIDE, dtype=torch.bool)
    for row in rows.tolist():
        top, left = torch.randint(1, SIDE - 8, (2,), generator=generator).tolist()
        images[row, :, top : top + 7, left : left + 7] = (
            images[row, :, top : top + 7, left : left + 7] * (1 - glyph()) + glyph()
        )
        where[row, top : top + 7, left : left + 7] = True
    return images, where
