"""Where the object probably is, in pictures that have no masks: an estimate, and told as one.

Photographers put what they mean off the frame (the boundary prior, Wei et al. 2012, "Geodesic saliency using
background priors"): what looks like the picture's edge nearby is background, and what does not is foreground.
Tests that use it leave a margin around it, and take it for a guess.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["CORE", "GENEROUS", "estimated_foreground"]

_SIDE = 32  # pixels of the side at which pictures are compared with their frames
_REACH = 0.35  # of the side: how far along the frame a colour still explains a pixel
GENEROUS, CORE = 0.35, 0.15  # of the picture: so that little of the object is missed, and so that it is most


def estimated_foreground(images: Tensor, share: float = GENEROUS) -> Tensor:
    """The part of each picture that its frame explains least, and that lies nearest to the middle.

    Parameters
    ----------
    images
        float (N, 3, H, W) in [0, 1].
    share
        Of the picture, how much is taken.

    Returns
    -------
    Tensor
        bool (N, H, W), the same share of every picture.
    """
    small = F.interpolate(images, size=(_SIDE, _SIDE), mode="area")
    count = len(small)
    steps = torch.linspace(0, 1, _SIDE, device=images.device)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
    depth = torch.minimum(places, 1 - places).amin(0)
    frame = depth.flatten() < 1.5 / (_SIDE - 1)
    pixels, where = small.flatten(2).transpose(1, 2), places.flatten(1).T
    colour = torch.cdist(pixels, pixels[:, frame])
    way = torch.cdist(where, where[frame])
    # Colours weigh against the spread of the picture's own.
    spread = pixels.std(1).mean(1).clamp_min(1e-3)[:, None, None]
    apart = (colour / spread + way[None] / _REACH).amin(2).view(count, 1, _SIDE, _SIDE)
    apart = F.avg_pool2d(F.pad(apart, (2, 2, 2, 2), mode="replicate"), 5, 1)
    central = torch.exp(-((places - 0.5) ** 2).sum(0) / (2 * 0.3**2))
    score = F.interpolate(apart * central, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    flat = score.flatten(1)
    least = flat.kthvalue(max(1, round((1 - share) * flat.shape[1])), 1).values
    return score > least[:, None, None]
