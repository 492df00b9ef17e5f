"""Regions of a picture: rings, what counts as its rim, other places of equal area, and words for them.

All regions are bool, (H, W) or (N, H, W); sides and areas are shares of the picture's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["contrast", "dilated", "elsewhere", "inner_ring", "place_words", "rim", "ring", "share_of"]

_BAND, _CORNER = 1 / 6, 1 / 4  # of the side: how far the rim reaches in


def share_of(region: Tensor) -> float:
    """Share of the picture that a region (..., H, W) covers, on average."""
    return float(region.float().mean())


def _depth(size: tuple[int, int]) -> Tensor:
    """How many pixels lie between each pixel and the nearest edge: int (H, W)."""
    height, width = size
    rows, columns = torch.arange(height), torch.arange(width)
    vertical, across = torch.minimum(rows, rows.flip(0)), torch.minimum(columns, columns.flip(0))
    return torch.minimum(vertical[:, None], across[None])


def ring(size: tuple[int, int], width: int) -> Tensor:
    """The outermost `width` pixels all around, bool (H, W)."""
    return _depth(size) < width


def inner_ring(size: tuple[int, int], width: int) -> Tensor:
    """A ring of (nearly) the area of `ring`, just inside of it."""
    depth = _depth(size)
    outer = int((depth < width).sum())
    thick = min(range(1, min(size)), key=lambda t: abs(int((depth < width + t).sum()) - 2 * outer))
    return (depth >= width) & (depth < width + thick)


def rim(size: tuple[int, int]) -> Tensor:
    """Where objects seldom are: a band of a sixth of the side, and corners of a quarter of it."""
    side = min(size)
    band = _depth(size) < round(_BAND * side)
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    reach = round(_CORNER * side)
    up_or_down = torch.minimum(rows, rows.flip(0)) < reach
    left_or_right = torch.minimum(columns, columns.flip(0)) < reach
    return band | (up_or_down[:, None] & left_or_right[None])


def dilated(regions: Tensor, pixels: int) -> Tensor:
    """Regions (N, H, W) grown by `pixels` on all sides."""
    if pixels < 1:
        return regions
    return F.max_pool2d(regions.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


def elsewhere(region: Tensor, *, most: int = 3) -> list[Tensor]:
    """Other places of the same area and shape that do not overlap a region (H, W): the placebo's.

    Mirror images first, turned ones in square pictures, since what is at the rim is then held against the
    rim; the region moved by half the picture where none of these is free.
    """
    height, width = region.shape
    mirrored = [region.flip(1), region.flip(0), region.flip((0, 1))]
    if height == width:
        mirrored += [region.T, region.T.flip((0, 1)), region.T.flip(0), region.T.flip(1)]
    moved = [
        region.roll((down, across), (0, 1))
        for down in (0, height // 2)
        for across in (0, width // 2)
        if down or across
    ]
    found: list[Tensor] = []
    for other in mirrored:
        if not (other & region).any() and not any(torch.equal(other, one) for one in found):
            found.append(other)
    if not found:
        found = [other for other in moved if not (other & region).any()]
    return found[:most]


def place_words(region: Tensor) -> str:
    """Where a region (H, W) is, and how much of the picture it covers."""
    height, width = region.shape
    area = share_of(region)
    much = f"{area:.0%} of the picture" if area >= 0.01 else f"{area:.1%} of the picture"
    rows = torch.nonzero(region.any(1)).flatten()
    columns = torch.nonzero(region.any(0)).flatten()
    if not len(rows):
        return f"nowhere, {much}"
    middle = (float(rows.float().mean()) + 0.5) / height, (float(columns.float().mean()) + 0.5) / width
    tall, wide = len(rows) / height, len(columns) / width
    vertical = "top" if middle[0] < 0.4 else "bottom" if middle[0] > 0.6 else ""
    across = "left" if middle[1] < 0.4 else "right" if middle[1] > 0.6 else ""
    if wide > 0.6 and tall <= 0.4 and vertical:
        return f"the {vertical} edge, {much}"
    if tall > 0.6 and wide <= 0.4 and across:
        return f"the {across} edge, {much}"
    if vertical and across:
        return f"the {vertical} {across} corner, {much}"
    if vertical or across:
        return f"the {vertical or across} of the middle, {much}"
    return f"the middle, {much}"


def contrast(images: Tensor, region: Tensor) -> float:
    """How sharply a region is set off from what is around it, beside the pictures' own roughness.

    A frame that was drawn ends at an edge; where a sky meets the picture's border, nothing does.

    Parameters
    ----------
    images
        float (N, 3, H, W).
    region
        bool (H, W); its outline is looked for up to a tenth of the side further out.

    Returns
    -------
    float
        Mean difference of neighbours across the outline over that of all neighbours, the median over
        pictures; about 1 where there is no edge.
    """
    size = (region.shape[0], region.shape[1])
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean(1)
    across = (images[..., 1:] - images[..., :-1]).abs().mean(1)
    usual = (down.mean((1, 2)) + across.mean((1, 2))).clamp_min(1e-6) / 2
    best = 0.0
    for pixels in range(max(2, min(size) // 10 + 1)):
        grown = dilated(region[None], pixels)[0]
        over, beside = grown[1:] != grown[:-1], grown[:, 1:] != grown[:, :-1]
        count = int(over.sum() + beside.sum())
        if count:
            edge = ((down * over).sum((1, 2)) + (across * beside).sum((1, 2))) / count
            best = max(best, float((edge / usual).median()))
    return best
