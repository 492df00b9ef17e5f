"""Insertion and deletion: what becomes of a class's probability as pixels come and go in a map's order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.models import Batches, batch_size, logits, probabilities
from candling.models.reading import nearest
from candling.vision.faithfulness.checks import check_maps, check_pictures, within
from candling.vision.isolation.order import order_of
from candling.vision.isolation.resampling import smoothed

__all__ = ["Baseline", "Curves", "bare", "curves", "insertion_minus_deletion"]

Baseline = Literal["blur", "mean"]
"""What stands where a pixel does not: ``blur``, a Gaussian over a tenth of the side, or ``mean``, the mean
colour of the picture."""

_BLUR = 0.1


@dataclass(frozen=True, eq=False)
class Curves:
    """Probabilities of classes as pixels come and go.

    shares: (S,) of the pixels, 0 to 1. insertion, deletion: (…, S) in [0, 1], … as the classes. Insertion
    begins with the baseline and ends with the picture, deletion the other way round.
    """

    shares: Tensor
    insertion: Tensor
    deletion: Tensor

    @property
    def insertion_auc(self) -> Tensor:
        """(…) in [0, 1], by the trapezoid rule; higher is better."""
        return within(torch.trapezoid(self.insertion, self.shares), 0, 1, "the area under insertion")

    @property
    def deletion_auc(self) -> Tensor:
        """(…) in [0, 1], by the trapezoid rule; lower is better."""
        return within(torch.trapezoid(self.deletion, self.shares), 0, 1, "the area under deletion")

    @property
    def difference(self) -> Tensor:
        """Insertion minus deletion (…) in [-1, 1]: 0 is what an order of no use gives."""
        return within(self.insertion_auc - self.deletion_auc, -1, 1, "insertion minus deletion")


def bare(images: Tensor, baseline: Baseline) -> Tensor:
    """Pictures (N, C, H, W) without what can be recognised.

    Raises
    ------
    ParamsError
        If there is no such baseline.
    """
    if baseline not in get_args(Baseline):
        raise ParamsError(f"there is no baseline {baseline!r}; {nearest(str(baseline), get_args(Baseline))}")
    if baseline == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return smoothed(images, _BLUR)


@torch.no_grad()
def curves(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    baseline: Baseline = "blur",
    steps: int = 50,
    batch: int | None = None,
) -> Curves:
    """Insertion and deletion curves of maps.

    Parameters
    ----------
    model
        Images (N, C, H, W) in [0, 1] to logits.
    images
        float (N, C, H, W) in [0, 1].
    maps
        float (N, H, W), or (N, K, H, W) for several classes: larger where a pixel matters more. Only the
        order counts; equal pixels come in a random one.
    classes
        int (N,) or (N, K).
    steps
        In how many parts pixels come and go.
    batch
        Pictures that go through the model at a time; None: as many as suit the device. Where memory runs
        out, half as many are tried.

    Raises
    ------
    DataError
        If images are not in [0, 1], or maps do not fit them or are NaN.
    ParamsError
        If there is no such baseline or class, or there are fewer than two steps.

    Notes
    -----
    Petsiuk, Das and Saenko 2018 (arXiv 1806.07421), section 4.1. Probabilities are as they are, not brought
    to [0, 1] by the least and greatest of a curve: a map does not look better for a model that is unsure.
    """
    if steps < 2:
        raise ParamsError(f"steps is {steps}; pixels come and go in two parts at least")
    check_pictures(images)
    size = (images.shape[2], images.shape[3])
    check_maps(maps, size, len(images), several=True)
    if classes.shape != maps.shape[:-2]:
        raise ParamsError(
            f"classes {tuple(classes.shape)} do not fit maps {tuple(maps.shape)}: each map has one class"
        )
    base = bare(images, baseline)
    each = classes.numel() // len(images)
    places = order_of(maps.to(images.device)).view(-1, *size)
    target = classes.reshape(-1).to(images.device)
    pixels = size[0] * size[1]
    counts = torch.linspace(0, pixels, steps + 1, dtype=torch.float64).round().long()
    batches = Batches(batch or batch_size(size, images.device))

    def asked(pictures: Tensor, wanted: Tensor) -> Tensor:
        """Probabilities of classes (M, …) for pictures (M, C, H, W)."""
        scored = logits(model, pictures, batch=batches)
        outside = wanted[(wanted < 0) | (wanted >= scored.shape[1])]
        if outside.numel():
            raise ParamsError(f"there is no class {int(outside[0])}; the model has {scored.shape[1]}")
        return probabilities(model, scored).gather(1, wanted.to(scored.device)).to(images.device)

    wanted = target.view(len(images), each)
    whole, empty = (asked(pictures, wanted).flatten() for pictures in (images, base))
    inner = counts[1:-1].to(images.device)
    total, many = len(target) * len(inner) * 2, len(inner)

    def between(part: slice) -> Tensor:
        """Pictures of the rows map × step × (insertion, deletion)."""
        at = torch.arange(part.start, part.stop, device=images.device)
        row, step, away = at // (2 * many), at // 2 % many, at % 2
        of = row // each
        first = places[row] < inner[step, None, None]
        seen = first ^ (away == 1)[:, None, None]
        return asked(torch.where(seen[:, None], images[of], base[of]), target[row, None])[:, 0]

    ways = torch.cat(batches.over(total, between)).view(len(target), many, 2)
    insertion = torch.cat([empty[:, None], ways[..., 0], whole[:, None]], 1)
    deletion = torch.cat([whole[:, None], ways[..., 1], empty[:, None]], 1)
    shape = (*classes.shape, steps + 1)
    return Curves(
        (counts.double() / pixels).float().to(images.device),
        within(insertion, 0, 1, "a probability").view(shape),
        within(deletion, 0, 1, "a probability").view(shape),
    )


def insertion_minus_deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    *,
    baseline: Baseline = "blur",
    steps: int = 50,
    batch: int | None = None,
) -> Tensor:
    """Area under insertion minus that under deletion, as `classes` in shape, in [-1, 1]; see `curves`."""
    found = curves(model, images, maps, classes, baseline=baseline, steps=steps, batch=batch)
    return found.difference
