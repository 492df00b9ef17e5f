"""Evidence maps held against regions and objects, and shown on the picture."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from candling.models import log_odds, logits
from candling.vision.isolation.resampling import smoothed

__all__ = ["evidence_share", "faded", "object_shapley"]


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


def faded(image: Tensor, evidence: Tensor, *, spread: float = 0.03) -> Tensor:
    """The image (3, H, W) faded to white where evidence (H, W) for the class is small or negative.

    `spread` is the standard deviation, in parts of the shorter side, of a Gaussian under which evidence is
    seen, so that neither the edges of windows nor single pixels show.
    """
    positive = smoothed(evidence.clamp_min(0), spread)
    weight = (positive / positive.max().clamp_min(1e-12)).sqrt()
    return 1 - weight * (1 - image)
