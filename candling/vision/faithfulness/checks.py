"""Checks of pictures, maps and scores."""

from __future__ import annotations

import torch
from torch import Tensor

from candling.errors import DataError

__all__ = ["check_maps", "check_pictures", "within"]


def check_pictures(images: Tensor) -> None:
    """See that images are float (N, C, H, W) in [0, 1]; DataError if not."""
    if images.dim() != 4 or not images.numel() or not images.is_floating_point():
        raise DataError(
            f"images must be floats (N, C, H, W), one at least, not {tuple(images.shape)} of {images.dtype}"
        )
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise DataError(f"images must lie in [0, 1], not {low:.3g} to {high:.3g}")


def check_maps(maps: Tensor, size: tuple[int, int], count: int, *, several: bool = False) -> None:
    """See that maps are (count, H, W) of a size, or (count, K, H, W), without NaN; DataError if not."""
    planes = (3, 4) if several else (3,)
    if maps.dim() not in planes or tuple(maps.shape[-2:]) != size or len(maps) != count:
        raise DataError(
            f"maps of shape {tuple(maps.shape)} do not fit {count} pictures of {size[0]} × {size[1]} pixels"
        )
    if not torch.isfinite(maps).all():
        bad = int(torch.nonzero(~torch.isfinite(maps).flatten(1).all(1))[0])
        raise DataError(f"the map of picture {bad} holds NaN or infinite values, which have no order")


def within(values: Tensor, low: float, high: float, name: str) -> Tensor:
    """The values, all of them NaN or in [low, high] but for rounding, which is cut off.

    Raises
    ------
    AssertionError
        If one lies outside: the computation is wrong then.
    """
    slack = 1e-5
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        raise AssertionError(f"{name} is {values[outside][0]:.6g}, outside of {low:g} to {high:g}")
    return values.clamp(low, high)
