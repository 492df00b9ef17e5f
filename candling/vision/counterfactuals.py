"""Counterfactuals: pictures that differ in one thing, to see whether the prediction follows it.

Objects are cut out with their masks and pasted onto clean backgrounds (background challenge, Xiao et al.
2021, arXiv 2006.09994). A swap *conflicts* when the new background is the one that the other class came
with; swaps whose background agrees with the object say nothing about following.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["associated_backgrounds", "feathered", "flat_background", "paste"]


def associated_backgrounds(labels: Sequence[int], environments: Sequence[str]) -> dict[int, str]:
    """The background that each class came with: the one with the largest lift over the other classes.

    Parameters
    ----------
    labels, environments
        Of the training data, one an image.

    Returns
    -------
    dict
        Class index to environment; P(environment | class) - P(environment | other classes) is largest.
    """
    pairs = Counter(zip(labels, environments, strict=True))
    totals = Counter(labels)
    everything = Counter(environments)
    out = {}
    for label in sorted(totals):
        others = max(len(labels) - totals[label], 1)

        def lift(environment: str, label: int = label, others: int = others) -> float:
            inside = pairs[label, environment]
            return inside / totals[label] - (everything[environment] - inside) / others

        out[label] = max(sorted(everything), key=lift)
    return out


def feathered(masks: Tensor) -> Tensor:
    """Masks bool (N, H, W) as weights (N, 1, H, W) in [0, 1] with an edge of one pixel."""
    return F.avg_pool2d(F.pad(masks.float()[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)


def paste(images: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """Objects of images (N, 3, H, W), cut by masks bool (N, H, W), onto backgrounds (N, 3, H, W)."""
    weight = feathered(masks)
    return weight * images + (1 - weight) * backgrounds


def flat_background(images: Tensor, masks: Tensor, colour: Tensor) -> Tensor:
    """The object alone on one colour (3,)."""
    return paste(images, masks, torch.broadcast_to(colour.view(1, 3, 1, 1), images.shape))
