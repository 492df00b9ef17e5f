"""The order that a map gives to pixels, and draws that are a picture's own."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["order_of", "own_generator"]


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
