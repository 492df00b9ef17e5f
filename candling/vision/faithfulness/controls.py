"""Maps that know nothing of the model, and what a map gains over them on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.statistics import Estimate, mean
from candling.vision.faithfulness.checks import check_pictures, within
from candling.vision.faithfulness.curves import Baseline, insertion_minus_deletion
from candling.vision.isolation.order import own_generator

__all__ = ["OverControls", "centre_gaussian", "over_controls", "random_maps"]


def random_maps(images: Tensor, *, draws: int = 4, cells: int = 7, seed: int = 0) -> Tensor:
    """Smooth random maps (N, draws, H, W) in [0, 1]: noise on a grid of `cells` × `cells`, enlarged.

    As smooth as maps of explanations are, since a noisy order is the worse for that alone. What is drawn for
    a picture is its own, whatever batch it is in.
    """
    if draws < 1 or cells < 2:
        raise ParamsError(f"random maps need one draw and two cells at least, not {draws} and {cells}")
    check_pictures(images)
    drawn = torch.stack(
        [torch.rand(draws, cells, cells, generator=own_generator(one, "random maps", seed)) for one in images]
    )
    large = F.interpolate(drawn, size=images.shape[2:], mode="bilinear", align_corners=True)
    return large.to(images.device)


def centre_gaussian(images: Tensor, *, spread: float = 0.25) -> Tensor:
    """Maps (N, H, W) in [0, 1] that fall off from the centre, where objects tend to be.

    `spread` is the standard deviation in parts of each side.
    """
    if not spread > 0:
        raise ParamsError(f"spread is {spread!r}; it must be above 0")
    check_pictures(images)
    height, width = (
        (-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * spread**2)).exp()
        for side in images.shape[2:]
    )
    return (height[:, None] * width).expand(len(images), -1, -1).to(images.device)


@dataclass(frozen=True, eq=False)
class OverControls:
    """Insertion minus deletion of maps and of controls, each (N,) in [-1, 1], picture by picture.

    over_random, over_centre: mean of the paired differences, with a bootstrap interval over pictures.
    """

    score: Tensor
    random: Tensor
    centre: Tensor
    over_random: Estimate
    over_centre: Estimate


def over_controls(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    baseline: Baseline = "blur",
    steps: int = 50,
    draws: int = 4,
    seed: int = 0,
    batch: int | None = None,
) -> OverControls:
    """How much more faithful maps are than random ones and than the centre, on the same pictures.

    Parameters
    ----------
    images, maps, classes, baseline, steps, batch
        As `curves` has them, with one map (N, H, W) and one class (N,) for each picture.
    draws
        Random maps of each picture, whose scores are averaged.

    Raises
    ------
    DataError, ParamsError
        As `curves` does, and where there are several maps of a picture.
    """
    if maps.dim() != 3:
        raise ParamsError(f"controls are paired with one map of each picture, not {tuple(maps.shape)}")
    check_pictures(images)
    known_nothing = random_maps(images, draws=draws, seed=seed)
    together = torch.cat(
        [maps[:, None].to(images), known_nothing, centre_gaussian(images)[:, None]], 1
    )  # fmt: skip
    found = insertion_minus_deletion(
        model, images, together, classes[:, None].expand(-1, draws + 2),
        baseline=baseline, steps=steps, batch=batch,
    )  # fmt: skip
    score, random, centre = found[:, 0], found[:, 1:-1].mean(1), found[:, -1]
    return OverControls(
        score, random, centre,
        _paired(score - random), _paired(score - centre),
    )  # fmt: skip


def _paired(differences: Tensor) -> Estimate:
    return mean(within(differences, -2, 2, "a difference of scores").double().cpu().numpy())
