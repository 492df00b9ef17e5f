"""Small models whose use of a picture is known, and pictures for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def box(size: int, top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


class Reads(nn.Module):
    """Logits (g, 0, -g): g is ten times the mean of a region, as far as it differs from a half."""

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = region
        self.seen = 0
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        self.batches.append(len(images))
        gain = 10 * (images.mean(1)[:, self.region].mean(1) - 0.5)
        return torch.stack([gain, torch.zeros_like(gain), -gain], 1)


class Both(nn.Module):
    """Logit high where both (or either, with `either`) of two regions are bright."""

    def __init__(self, first: Tensor, second: Tensor, *, either: bool = False) -> None:
        super().__init__()
        self.regions, self.either = (first, second), either

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(1)
        bright = torch.stack([((grey[:, one].mean(1) - 0.3) / 0.5).clamp(0, 1) for one in self.regions])
        gain = 6 * (bright.amax(0) if self.either else bright.prod(0)) - 3
        return torch.stack([gain, -gain], 1)
