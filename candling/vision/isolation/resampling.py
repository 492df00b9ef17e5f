"""Smoothing and enlarging of maps, each as one small matrix along rows and one along columns."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["between_cells", "from_cells", "smoothed"]

_NOTHING = 0.3  # pixels: a narrower Gaussian changes nothing


def smoothed(maps: Tensor, spread: float) -> Tensor:
    """Maps (..., H, W) under a Gaussian whose standard deviation is this part of the shorter side."""
    height, width = maps.shape[-2:]
    sigma = spread * min(height, width)
    if sigma < _NOTHING:
        return maps
    rows, columns = (_weights(torch.arange(side), torch.arange(side), sigma) for side in (height, width))
    return rows.to(maps) @ maps @ columns.to(maps).T


def from_cells(cells: int, side: int, spread: float) -> Tensor:
    """A matrix (side, cells): each pixel is a mean of the cells around it, by a Gaussian of so many cells."""
    return _weights((torch.arange(side) + 0.5) * cells / side, torch.arange(cells) + 0.5, spread)


def between_cells(shifts: Tensor, cells: int, side: int) -> Tensor:
    """Matrices (B, side, cells) that interpolate between the middles of cells, shifted by (B,) cells."""
    place = (torch.arange(side, device=shifts.device) + 0.5) / side * (cells - 1)
    at = (place + shifts[:, None] - 0.5).clamp(0, cells - 1)
    middles = torch.arange(cells, device=shifts.device)
    return (1 - (at[..., None] - middles).abs()).clamp_min(0)


def _weights(at: Tensor, of: Tensor, sigma: float) -> Tensor:
    """Rows of a Gaussian around each place, over places, that sum to one."""
    weights = (-((at[:, None].float() - of.float()) ** 2) / (2 * sigma**2)).exp()
    return weights / weights.sum(1, keepdim=True)
