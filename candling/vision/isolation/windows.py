"""Isolation: which parts of an image a prediction uses.

Windows of the image are replaced by patches of donors, and put alone onto donors; the mean change of the
class's log-odds is the evidence of the window. Hiding measures a window in the presence of all others and
showing in the absence of all others: the last and the first term of its Shapley value. What a hidden
patch is replaced with decides the answer (Sturmfels et al., "Visualizing the Impact of Feature
Attribution Baselines", Distill 2020): a blur leaves a smooth sky as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.models import log_odds, logits

__all__ = [
    "Isolation",
    "blurred_fill",
    "evidence_share",
    "faded",
    "isolate",
    "object_shapley",
    "window_size",
    "windows_of",
]

Progress = Callable[[int, int], None]


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


def blurred_fill(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] averaged over a quarter of their side: the fill without donors."""
    pad = max(1, min(images.shape[2:]) // 8)
    padded, side = F.pad(images, (pad, pad, pad, pad), mode="reflect"), 2 * pad + 1
    # Rows first, then columns: the same mean for a fraction of the sums.
    return F.avg_pool2d(F.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def window_size(size: tuple[int, int], side: int | None, stride: int | None) -> tuple[int, int]:
    """Side and stride of the windows in pixels: by default a quarter of the image, and two thirds of that."""
    side = side or max(1, min(size) // 4)
    return side, stride or max(1, 2 * side // 3)


@dataclass(frozen=True)
class Isolation:
    """maps: (N, C, H, W) evidence per pixel, log-odds, for `classes` (N, C); fill: what hid the windows."""

    maps: Tensor
    classes: Tensor
    fill: Literal["donors", "blur"]
    evaluations: int


def isolate(
    model: nn.Module,
    images: Tensor,
    *,
    classes: Tensor | None = None,
    donors: Tensor | None = None,
    donors_per_image: int = 4,
    side: int | None = None,
    stride: int | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> Isolation:
    """Evidence maps for each image.

    Parameters
    ----------
    model
        Images (N, 3, H, W) in [0, 1] to logits.
    images
        float (N, 3, H, W) in [0, 1].
    classes
        int (N, C): for which classes, image by image; None: for all.
    donors
        float (D, 3, H, W): clean backgrounds; image i uses rows i, i + D / donors_per_image, … so that
        donors sorted by kind are used evenly. None: a blur of the image itself.
    side, stride
        Of the windows, in pixels; see `window_size`.
    batch
        Images evaluated at a time; None: as `logits` has it.
    """
    count, _, height, width = images.shape
    windows = windows_of((height, width), *window_size((height, width), side, stride))
    coverage = windows.float().sum(0)
    fill: Literal["donors", "blur"] = "blur" if donors is None else "donors"
    per_image = 1 if donors is None else min(donors_per_image, len(donors))
    maps, targets, evaluations = [], [], 0
    for i in range(count):
        image = images[i : i + 1]
        if donors is None:
            fills = blurred_fill(image)
        else:
            step = len(donors) / per_image
            fills = donors[torch.tensor([int(i + j * step) % len(donors) for j in range(per_image)])]
        keep = windows[None, :, None]
        hidden = torch.where(keep, fills[:, None], image[:, None])
        shown = torch.where(keep, image[:, None], fills[:, None])
        stack = torch.cat([image, fills, hidden.flatten(0, 1), shown.flatten(0, 1)])
        out = log_odds(model, logits(model, stack, batch=batch))
        targets.append(torch.arange(out.shape[1]) if classes is None else classes[i])
        out = out[:, targets[-1]]
        evaluations += len(stack)
        whole, empty = out[:1], out[1 : 1 + per_image]
        out_hidden, out_shown = out[1 + per_image :].view(2, per_image, len(windows), -1)
        evidence = ((whole[:, None] - out_hidden) + (out_shown - empty[:, None])).mean(0) / 2
        maps.append(torch.einsum("mk,mhw->khw", evidence, windows.float()) / coverage)
        if progress is not None:
            progress(i + 1, count)
    return Isolation(torch.stack(maps), torch.stack(targets), fill, evaluations)


def evidence_share(maps: Tensor, regions: Tensor, *, sign: Literal["both", "for"] = "both") -> Tensor:
    """Share of the evidence inside a region.

    Parameters
    ----------
    maps
        (N, H, W) evidence.
    regions
        bool (N, H, W).
    sign
        ``both`` counts evidence for and against the class; ``for`` counts positive evidence alone, which
        says nothing of a picture in which all that matters speaks against the class.

    Returns
    -------
    Tensor
        (N,) in [0, 1]; NaN where an image has no evidence at all.

    Notes
    -----
    Relevance mass accuracy, Arras et al. 2022 (arXiv 2003.07258), section 3.3, with ``for``.
    """
    mass = (maps.abs() if sign == "both" else maps.clamp_min(0)).double()
    share = (mass * regions).sum((1, 2)) / mass.sum((1, 2))
    return share.clamp(0, 1)


def object_shapley(
    model: nn.Module,
    images: Tensor,
    clean: Tensor,
    masks: Tensor,
    labels: Tensor,
    donors: Tensor,
    *,
    donors_per_image: int = 8,
    batch: int | None = None,
) -> Tensor:
    """Two-player Shapley values of object and background for the log-odds of the label.

    v(both) is the image, v(background) the image without its object, v(object) the object on donors and
    v(neither) the donors.

    Parameters
    ----------
    images, clean
        float (N, 3, H, W) in [0, 1]: with and without the object.
    masks
        bool (N, H, W) of the object.
    labels
        (N,) class whose log-odds are shared out.
    donors
        float (D, 3, H, W) clean backgrounds, used evenly as in `isolate`.

    Returns
    -------
    Tensor
        (N, 2): φ of the object and of the background; they sum to v(both) - v(neither).
    """
    count, per_image = len(images), min(donors_per_image, len(donors))
    step = len(donors) / per_image
    rows = torch.tensor(
        [[int(i + j * step) % len(donors) for j in range(per_image)] for i in range(count)], dtype=torch.long
    )

    def odds(stack: Tensor, repeats: int) -> Tensor:
        out = log_odds(model, logits(model, stack, batch=batch))
        return out.gather(1, labels.repeat_interleave(repeats)[:, None]).view(count, repeats).mean(1)

    both, background = odds(images, 1), odds(clean, 1)
    pasted = torch.where(masks[:, None, None], images[:, None], donors[rows])
    alone = odds(pasted.flatten(0, 1), per_image)
    empty = log_odds(model, logits(model, donors, batch=batch))[rows]
    neither = empty.gather(2, labels[:, None, None].expand(-1, per_image, 1))[..., 0].mean(1)
    phi_object = ((both - background) + (alone - neither)) / 2
    phi_background = ((both - alone) + (background - neither)) / 2
    return torch.stack([phi_object, phi_background], 1)


def faded(image: Tensor, evidence: Tensor, *, smooth: int | None = None) -> Tensor:
    """The image (3, H, W) faded to white where evidence (H, W) for the class is small or negative.

    `smooth` averages the evidence over so many pixels, by default a tenth of the side, so that the edges of
    windows do not show.
    """
    pad = (smooth or min(image.shape[1:]) // 10) // 2
    padded = F.pad(evidence.clamp_min(0)[None], (pad, pad, pad, pad), mode="replicate")
    positive = F.avg_pool2d(padded, 2 * pad + 1, 1)[0]
    weight = (positive / positive.max().clamp_min(1e-12)).sqrt()
    return 1 - weight * (1 - image)
