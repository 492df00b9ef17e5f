"""Taking something out of a picture: what was there is filled in smoothly from the edge.

The fill is harmonic: within the region every pixel is the mean of its neighbours (Laplace's equation), so
that no edge and no texture of its own comes in. It is what diffusion from the region's edge comes to rest at
(Bertalmio et al. 2000, "Image inpainting", section 2, without the transport term).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import DataError

__all__ = ["inpaint"]

_SWEEPS, _LAST_SWEEPS = 60, 16  # relaxations; the last size only smooths what coarser ones have settled
_MARGIN = 2  # pixels around the regions that are looked at


def inpaint(images: Tensor, regions: Tensor) -> Tensor:
    """Images without what is in the regions.

    Solved from coarse to fine (cascadic multigrid, Bornemann and Deuflhard 1996), all images at once. At the
    picture's frame nothing flows. A picture that is region throughout becomes its mean colour.

    Parameters
    ----------
    images
        float (N, C, H, W) in [0, 1].
    regions
        bool (N, H, W), or (H, W) for all.

    Returns
    -------
    Tensor
        (N, C, H, W) in [0, 1]; pixels outside the regions are those of `images`.

    Raises
    ------
    DataError
        If the regions' size is not that of the images.
    """
    if regions.shape[-2:] != images.shape[-2:]:
        raise DataError(
            f"regions of {tuple(regions.shape[-2:])} pixels do not fit images of {tuple(images.shape[-2:])}"
        )
    holes = torch.broadcast_to(regions, (len(images), *regions.shape[-2:]))[:, None]
    if not holes.any():
        return images.clone()
    out = images.clone()
    rows, columns = (torch.nonzero(holes.any(0)[0].any(axis)).flatten() for axis in (1, 0))
    box = tuple(
        slice(max(int(found[0]) - _MARGIN, 0), int(found[-1]) + 1 + _MARGIN) for found in (rows, columns)
    )
    filled = _filled(images[..., box[0], box[1]], holes[..., box[0], box[1]])
    out[..., box[0], box[1]] = filled
    whole = holes.flatten(1).all(1)[:, None, None, None]
    return torch.where(whole, images.mean((2, 3), keepdim=True), out)


def _filled(images: Tensor, holes: Tensor) -> Tensor:
    """`inpaint` of images (N, C, H, W), holes bool (N, 1, H, W); without a known pixel undefined."""
    known = (~holes).to(images.dtype)
    # Sizes from fine to coarse, each with the mean of what is known of it.
    pyramid = [(images * known, known)]
    while min(pyramid[-1][0].shape[-2:]) > 2 and not (pyramid[-1][1] > 0).all():
        colours, weights = pyramid[-1]
        weight = F.avg_pool2d(weights, 2, ceil_mode=True, count_include_pad=False)
        colour = F.avg_pool2d(colours * weights, 2, ceil_mode=True, count_include_pad=False)
        pyramid.append((colour / weight.clamp_min(1e-12), (weight > 0).to(images.dtype)))
    colours, weights = pyramid.pop()
    total = weights.sum((2, 3), keepdim=True).clamp_min(1)
    start = (colours * weights).sum((2, 3), keepdim=True) / total
    out = _relaxed(start.expand_as(colours), colours, weights, _SWEEPS)
    for turn, (colours, weights) in enumerate(reversed(pyramid), 1):
        finer = F.interpolate(out, size=colours.shape[-2:], mode="bilinear", align_corners=False)
        out = _relaxed(finer, colours, weights, _LAST_SWEEPS if turn == len(pyramid) else _SWEEPS)
    return torch.where(holes, out, images)


def _relaxed(start: Tensor, colours: Tensor, weights: Tensor, sweeps: int) -> Tensor:
    """Damped Jacobi sweeps from `start`, known pixels held."""
    out = torch.where(weights > 0, colours, start)
    for _ in range(sweeps):
        padded = F.pad(out, (1, 1, 1, 1), mode="replicate")
        around = (
            padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        )
        out = torch.where(weights > 0, colours, 0.1 * out + 0.225 * around)
    return out
