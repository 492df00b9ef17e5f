"""What all of them share: the order that a map gives to pixels, and checks of maps and scores."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from candling.errors import DataError

__all__ = ["check_maps", "check_pictures", "own_generator", "order_of", "within"]


def order_of(maps: Tensor, *, seed: int = 0) -> Tensor:
    """The place of each pixel, 0 for the one that matters most.

    Pixels of equal value stand in an order that is drawn from `seed`, the same for all maps of a size, so
    that neither the top left corner nor a batch decides.

    Parameters
    ----------
    maps
        float (..., H, W).

    Returns
    -------
    Tensor
        int64 (..., H, W): in each map a permutation of 0 … H·W - 1.
    """
    flat = maps.flatten(-2)
    drawn = torch.randperm(flat.shape[-1], generator=torch.Generator().manual_seed(seed)).to(maps.device)
    ranked = drawn[flat[..., drawn].argsort(dim=-1, descending=True, stable=True)]
    places = torch.empty_like(ranked)
    count = torch.arange(flat.shape[-1], device=maps.device)
    return places.scatter_(-1, ranked, count.expand_as(ranked).contiguous()).view(maps.shape)


def own_generator(image: Tensor, purpose: str, seed: int) -> torch.Generator:
    """A generator that is a picture's own, whatever batch it is in.

    Parameters
    ----------
    image
        float (C, H, W) in [0, 1].
    purpose
        What is drawn, so that two things that are drawn for a picture are independent.
    """
    pixels = (image * 255).round().clamp(0, 255).to(torch.uint8).cpu().contiguous()
    digest = hashlib.sha256(f"{purpose}/{seed}/".encode() + pixels.numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


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
