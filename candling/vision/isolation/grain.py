"""How fine a map should be: as fine as it is true, which differs from picture to picture.

Where a network reads single pixels a map of single pixels is right, and where it needs whole things, the
same map shows it crumbs. So several are made, from fine to smooth, and the one is kept whose order of pixels
says best what becomes of the class: insertion minus deletion (Petsiuk, Das and Saenko, arXiv 1806.07421,
section 4.1) in few steps, the most of them early, where the order decides the most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from candling.vision.isolation.found import Asked, odds_of
from candling.vision.isolation.order import order_of
from candling.vision.isolation.resampling import smoothed

__all__ = ["STEPS", "candidates", "finest", "weighed"]

STEPS = 8  # of each curve by which a grain is chosen
_EDGES = 0.05  # windows' edges, smoothed away where slopes tell of pixels
_NEXT_TO_NOTHING = 1e-4  # of all evidence
_TINY = 1e-20


def candidates(windows: Tensor, slopes: Tensor | None, grains: Sequence[float]) -> Tensor:
    """Maps (G, N, K, H, W) at each grain: of windows; with slopes the mean of both, and of slopes alone.

    Slopes (N, K, H, W) count as much as windows: each map holds as much evidence as windows found.
    """
    if slopes is None:
        return torch.stack([smoothed(windows, grain) for grain in grains])
    total = slopes.abs().sum((2, 3), keepdim=True)
    slopes = windows.abs().sum((2, 3), keepdim=True) / total.clamp_min(_TINY) * slopes
    # A model that has slopes may have none for a class.
    slopes = torch.where(total > _TINY, slopes, windows)
    fine = [smoothed(slopes, grain) for grain in grains]
    coarse = [smoothed(windows, max(grain, _EDGES)) for grain in grains]
    mixed = [(one + other) / 2 for one, other in zip(fine, coarse, strict=True)]
    return torch.stack([*mixed, *fine])


def weighed(maps: Tensor, windows: Tensor) -> Tensor:
    """Maps (N, K, H, W) in the same order of pixels, with as much for and against as windows found.

    It goes to pixels by the square of what they hold. Slopes change their sign from pixel to pixel where
    nothing is read, and half of that would count as evidence; the windows, over which it averages out, say
    how much there is, and squares keep it where it stands out.
    """
    out = torch.zeros_like(maps)
    least = _NEXT_TO_NOTHING * windows.abs().sum((2, 3), keepdim=True)
    for sign in (1, -1):
        part = (sign * maps).clamp_min(0).square()
        # Next to nothing rather than nothing, so that the order stays.
        had = (sign * windows).clamp_min(0).sum((2, 3), keepdim=True).maximum(least)
        out += sign * part * (had / part.sum((2, 3), keepdim=True).clamp_min(_TINY))
    return out


def finest(asked: Asked, maps: Tensor, base: Tensor) -> tuple[Tensor, int]:
    """Of several maps for each picture and class the most faithful one, and the passes that it took.

    Parameters
    ----------
    maps
        (G, N, K, H, W); of equally faithful ones the first.
    base
        (N, C, H, W), what is seen where a pixel is not.

    Returns
    -------
    tuple of Tensor and int
        (N, K, H, W), and passes.
    """
    grains, (height, width) = len(maps), maps.shape[3:]
    if grains == 1:
        return maps[0], 0
    shares = ((torch.arange(STEPS, device=maps.device) + 1) / (STEPS + 1)).square()
    image, target, place = asked.pairs
    at = torch.arange(place.numel(), device=maps.device)
    first = torch.full((len(image),), place.numel(), device=maps.device).scatter_reduce(
        0, place.flatten(), at, "amin"
    )
    maps = maps.flatten(1, 2)[:, first]
    order = order_of(maps).flatten(0, 1)
    total = len(order) * STEPS * 2

    def shown(part: slice) -> Tensor:
        """Pictures (B, C, H, W) of the rows map × step × (insertion, deletion)."""
        rows = torch.arange(part.start, part.stop, device=maps.device)
        row, step, away = rows // (2 * STEPS), rows // 2 % STEPS, rows % 2
        of = image[row % len(image)]
        early = order[row] < (shares[step] * height * width)[:, None, None]
        seen = early ^ (away == 1)[:, None, None]
        return torch.where(seen[:, None], asked.images[of], base[of])

    wanted = target.repeat(grains).repeat_interleave(2 * STEPS)[:, None]
    odds = odds_of(asked, total, shown, wanted)
    # Both curves begin and end at the same two probabilities, which no map changes.
    inner = odds.sigmoid().view(grains, len(image), STEPS, 2)
    best = ((inner[..., 0] - inner[..., 1]) * _weights(shares)).sum(-1).argmax(0)
    return maps[best, torch.arange(len(image), device=maps.device)][place], total


def _weights(shares: Tensor) -> Tensor:
    """By the trapezoid rule, of inner points between 0 and 1."""
    ends = torch.cat([shares.new_zeros(1), shares, shares.new_ones(1)])
    return (ends[2:] - ends[:-2]) / 2
