"""Where a map lies, for pictures whose objects have masks; each score beside what chance would give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from candling.errors import DataError, ParamsError
from candling.vision.faithfulness.checks import within
from candling.vision.isolation.evidence import evidence_share
from candling.vision.isolation.order import order_of

__all__ = ["Located", "located", "pointing_game", "rank_accuracy", "relevance_mass"]

_TOLERANCE = 15 / 224  # of the shorter side: 15 pixels of the usual picture, as in the paper


@dataclass(frozen=True, eq=False)
class Located:
    """Scores of maps and their chance, each (N,) in [0, 1]; NaN where a picture has no mask.

    mass, rank, pointing: as the functions say. area: the mask's share of the picture, the chance of mass and
    of rank. nearby: the share within the tolerance of the mask, the chance of pointing. missing: how many
    pictures have no mask.
    """

    mass: Tensor
    rank: Tensor
    pointing: Tensor
    area: Tensor
    nearby: Tensor
    missing: int

    @property
    def note(self) -> str:
        """A sentence on pictures without a mask, empty where all have one."""
        if not self.missing:
            return ""
        return f"{self.missing} of {len(self.area)} pictures have no mask and say nothing of where maps lie"


def _checked(maps: Tensor, masks: Tensor) -> Tensor:
    """Masks as bool (N, H, W)."""
    if maps.dim() != 3 or maps.shape != masks.shape:
        raise DataError(
            f"masks of shape {tuple(masks.shape)} do not fit maps of {tuple(maps.shape)}: "
            "each map (N, H, W) needs a mask of its size"
        )
    if not torch.isfinite(maps).all():
        raise DataError("maps hold NaN or infinite values, so that nothing can be said of where they lie")
    return masks.to(maps.device) > 0


def _where(masks: Tensor, values: Tensor) -> Tensor:
    """Values (N,) as float32, NaN where there is no mask."""
    return torch.where(masks.flatten(1).any(1), values.float(), torch.nan)


def relevance_mass(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of the evidence for the class that lies on the object, (N,) in [0, 1].

    NaN where there is no mask, or no evidence for the class. Chance is the mask's share of the picture.

    Notes
    -----
    Relevance mass accuracy, Arras et al. 2022 (arXiv 2003.07258), section 3.3.
    """
    regions = _checked(maps, masks)
    return within(_where(regions, evidence_share(maps, regions, sign="for")), 0, 1, "relevance mass accuracy")


def rank_accuracy(maps: Tensor, masks: Tensor, *, seed: int = 0) -> Tensor:
    """Share on the object of the K pixels that matter most, K being the object's size; (N,) in [0, 1].

    NaN where there is no mask. Chance is the mask's share of the picture. Equal pixels are in random order.

    Notes
    -----
    Relevance rank accuracy, Arras et al. 2022 (arXiv 2003.07258), section 3.3.
    """
    regions = _checked(maps, masks)
    size = regions.sum((1, 2))
    first = order_of(maps, seed=seed) < size[:, None, None]
    hits = (first & regions).sum((1, 2)) / size.clamp_min(1)
    return within(_where(regions, hits), 0, 1, "relevance rank accuracy")


def _nearby(regions: Tensor, tolerance: int | None) -> Tensor:
    """Pixels within `tolerance` of the mask, bool (N, H, W)."""
    reach = round(_TOLERANCE * min(regions.shape[1:])) if tolerance is None else tolerance
    if reach < 0:
        raise ParamsError(f"tolerance is {tolerance}; it must be a number of pixels from 0")
    if not reach:
        return regions
    grown = [
        distance_transform_edt(~region) <= reach if region.any() else region
        for region in regions.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(grown)).to(regions.device)


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: int | None = None) -> Tensor:
    """Whether the pixel that matters most lies on the object, (N,) in [0, 1]; NaN where there is no mask.

    Where several pixels matter most, it is the share of them that do. Chance is the share of the picture
    within the tolerance of the mask.

    Parameters
    ----------
    tolerance
        Pixels beside the object that count as on it; None: 15 in 224 of the shorter side.

    Notes
    -----
    Zhang et al. 2018, "Top-down neural attention by excitation backprop" (arXiv 1608.00507), section 4.3.
    """
    regions = _checked(maps, masks)
    near = _nearby(regions, tolerance)
    most = maps == maps.amax((1, 2), keepdim=True)
    hits = (most & near).sum((1, 2)) / most.sum((1, 2))
    return within(_where(regions, hits), 0, 1, "the pointing game")


def located(maps: Tensor, masks: Tensor, *, tolerance: int | None = None, seed: int = 0) -> Located:
    """All that masks tell of maps, beside chance.

    Parameters
    ----------
    maps
        float (N, H, W), larger where a pixel matters more.
    masks
        bool or ids (N, H, W); all zero where a picture has none.

    Raises
    ------
    DataError
        If masks are not of the maps' size, or maps are NaN.
    """
    regions = _checked(maps, masks)
    area = _where(regions, regions.float().mean((1, 2)))
    nearby = _where(regions, _nearby(regions, tolerance).float().mean((1, 2)))
    return Located(
        mass=relevance_mass(maps, regions),
        rank=rank_accuracy(maps, regions, seed=seed),
        pointing=pointing_game(maps, regions, tolerance=tolerance),
        area=within(area, 0, 1, "the area of a mask"),
        nearby=within(nearby, 0, 1, "the area near a mask"),
        missing=int((~regions.flatten(1).any(1)).sum()),
    )
