"""Sliding windows: each is replaced by patches of donors, and put alone onto donors.

The mean change of the class's log-odds is the evidence of the window. Hiding measures a window in the
presence of all others and showing in the absence of all others: the last and the first term of its Shapley
value.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.vision.isolation.fills import FILLS, Fill, donor_rows, filled
from candling.vision.isolation.found import Asked, Found, odds_of
from candling.vision.isolation.settings import check_choice, check_whole

__all__ = ["Windows", "slide", "window_size", "windows_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Sliding windows; evidence in log-odds a window, averaged over the windows that hold a pixel.

    donors: float (D, C, H, W): clean backgrounds that windows are replaced by; image i uses rows
    i, i + D / donors_per_image, … so that donors sorted by kind are used evenly. None: `fill`.
    donors_per_image: how many of them for each image. side, stride: of the windows in pixels; see
    `window_size`. fill: what is used without donors, see `candling.vision.isolation.fills.Fill`.
    """

    donors: Tensor | None = None
    donors_per_image: int = 4
    side: int | None = None
    stride: int | None = None
    fill: Fill = "blur"

    def __post_init__(self) -> None:
        check_whole("donors_per_image", self.donors_per_image)
        check_choice("fill", self.fill, FILLS)
        for name in ("side", "stride"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        if self.side is not None and self.stride is not None and self.stride > self.side:
            raise ParamsError(
                f"stride {self.stride} is larger than side {self.side}; windows would leave gaps"
            )

    def __repr__(self) -> str:
        donors = "None" if self.donors is None else f"{len(self.donors)} pictures"
        return (
            f"Windows(donors={donors}, donors_per_image={self.donors_per_image}, side={self.side}, "
            f"stride={self.stride}, fill={self.fill!r})"
        )


def windows_of(size: tuple[int, int], side: int, stride: int) -> Tensor:
    """Square windows that tile (H, W) with overlap, as masks bool (M, H, W); edges are covered too.

    Raises
    ------
    ValueError
        If `stride` is not in 1…`side`: pixels between windows would get no evidence.
    """
    if not 1 <= stride <= side:
        raise ValueError(f"stride must be from 1 to the side of the windows, {side}, got {stride}")
    height, width = size
    masks = []
    for top in range(-(side - stride), height, stride):
        for left in range(-(side - stride), width, stride):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
            if mask.any():
                masks.append(mask)
    return torch.stack(masks)


def window_size(size: tuple[int, int], side: int | None, stride: int | None) -> tuple[int, int]:
    """Side and stride of the windows in pixels: by default a quarter of the image, and two thirds of that."""
    side = side or max(1, min(size) // 4)
    return side, stride or max(1, 2 * side // 3)


def slide(asked: Asked, settings: Windows) -> Found:
    """Evidence maps by sliding windows."""
    count, planes, height, width = asked.images.shape
    donors = settings.donors
    if donors is not None and (donors.dim() != 4 or tuple(donors.shape[1:]) != (planes, height, width)):
        raise ParamsError(
            f"donors are of shape {tuple(donors.shape)}; pictures need (D, {planes}, {height}, {width})"
        )
    windows = windows_of((height, width), *window_size((height, width), settings.side, settings.stride))
    windows = windows.to(asked.images.device)
    coverage = windows.float().sum(0)
    many = len(windows)
    maps, evaluations = [], 0
    for i in range(count):
        image = asked.images[i : i + 1]
        if donors is None:
            fills = filled(image, settings.fill)
        else:
            fills = donors[donor_rows(i, len(donors), settings.donors_per_image)].to(image)
        per_image = len(fills)
        # All fills alone, then for each fill every window hidden, then for each every window shown.
        rows = per_image * (1 + 2 * many)
        wanted = asked.classes[i].expand(rows, -1)

        def compose(part: slice, image: Tensor = image, fills: Tensor = fills) -> Tensor:
            place = torch.arange(part.start, part.stop, device=image.device)
            alone, place = place < len(fills), place - len(fills)
            fill = torch.where(alone, place + len(fills), place // many % len(fills))
            inside = windows[place % many]
            shown = (place >= len(fills) * many)[:, None, None]
            visible = torch.where(shown, inside, ~inside) & ~alone[:, None, None]
            return torch.where(visible[:, None], image, fills[fill])

        out = odds_of(asked, rows, compose, wanted)
        empty, (hidden, shown) = out[:per_image], out[per_image:].view(2, per_image, many, -1)
        evidence = ((asked.odds[i] - hidden) + (shown - empty[:, None])).mean(0) / 2
        maps.append(torch.einsum("mk,mhw->khw", evidence, windows.float()) / coverage)
        evaluations += rows
        asked.tell(i + 1)
    fill = "patches of donors" if donors is not None else f"the fill '{settings.fill}' of the image itself"
    return Found(torch.stack(maps), evaluations, (f"hidden windows were replaced by {fill}",))
