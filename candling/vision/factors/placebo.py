"""Changes that carry nothing: smooth noise of the same size in pixels as the change that it stands beside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["noise", "rms", "same_size"]


def rms(change: Tensor, masks: Tensor | None = None) -> Tensor:
    """Root mean square (N,) of changes (N, 3, H, W) over channels and pixels, weighed by masks (N, H, W)."""
    squares = change.square().mean(1)
    if masks is None:
        return squares.mean((1, 2)).sqrt()
    return ((squares * masks).sum((1, 2)) / masks.sum((1, 2)).clamp_min(1)).sqrt()


def noise(shape: Sequence[int], keys: Sequence[object]) -> Tensor:
    """Pink noise, one field for each key: float (N, *shape) of mean 0 and root mean square 1 a picture.

    Its amplitude falls as 1/f, as that of photographs (Field 1987, JOSA A 4). A field depends on its key
    alone, and is drawn on the CPU, so that batches and devices change nothing.
    """
    channels, height, width = shape
    down = torch.fft.fftfreq(height)[:, None]
    across = torch.fft.rfftfreq(width)[None]
    frequency = torch.hypot(down, across)
    weights = torch.where(frequency > 0, 1 / frequency.clamp_min(1e-9), 0)
    fields = []
    for key in keys:
        digest = hashlib.sha256(repr(key).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        white = torch.randn(channels, height, width, generator=generator)
        field = torch.fft.irfft2(torch.fft.rfft2(white) * weights, s=(height, width))
        fields.append(field / field.square().mean().sqrt())
    return torch.stack(fields)


def same_size(images: Tensor, size: Tensor, fields: Tensor, weights: Tensor | None = None) -> Tensor:
    """Images (N, 3, H, W) with noise whose root mean square after clipping is `size` (N,).

    Clipping takes some of the noise away, so its amplitude is raised a few times; of pictures that are
    nearly all black and white not all can be had back.

    Parameters
    ----------
    fields
        As `noise` makes them.
    weights
        (N, 1, H, W) in [0, 1], where the noise goes; None: everywhere.
    """
    fields = fields.to(images)
    if weights is not None:
        fields = fields * weights
    amplitude = size / rms(fields).clamp_min(1e-12)
    for _ in range(4):
        noisy = (images + amplitude[:, None, None, None] * fields).clamp(0, 1)
        amplitude = amplitude * (size / rms(noisy - images).clamp_min(1e-12)).clamp(1, 2)
    return (images + amplitude[:, None, None, None] * fields).clamp(0, 1)
