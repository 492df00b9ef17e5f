"""Whether maps depend on what the model has learned, and on nothing that it does not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from candling.errors import DataError, ModelError, ParamsError
from candling.models import logits
from candling.models.running import refuse_black_box
from candling.vision.faithfulness.checks import check_maps, check_pictures, within
from candling.vision.isolation.order import order_of, own_generator

__all__ = ["Randomised", "Stability", "complexity", "randomised", "rise_in_complexity", "stability"]

_BINS = 100
_HALVINGS = 6


@contextmanager
def randomised(model: nn.Module, *, seed: int = 0) -> Iterator[nn.Module]:
    """The model with the values of each parameter shuffled; on leaving they are back, bit for bit.

    Shuffled weights know nothing, and are of the size of the trained ones whatever the architecture, so that
    signals neither die nor explode.

    Raises
    ------
    ModelError
        If the model is a black box or has no parameters.
    """
    refuse_black_box(model, "its parameters")
    kept = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    if not kept:
        raise ModelError("the model has no parameters that could be randomised")
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter, values in kept:
                order = torch.randperm(values.numel(), generator=generator).to(values.device)
                parameter.copy_(values.flatten()[order].view(values.shape))
        yield model
    finally:
        with torch.no_grad():
            for parameter, values in kept:
                parameter.copy_(values)


def complexity(maps: Tensor, *, bins: int = _BINS) -> Tensor:
    """Entropy of the histogram of each map, (N,) in [0, log bins], in nats.

    Bins divide a map's own range evenly, so that neither scale nor shift counts. A map of a few bright spots
    has little, noise has much.
    """
    found = []
    for one in maps.detach().double().cpu().numpy():
        counts, _ = np.histogram(one, bins=bins)
        shares = counts[counts > 0] / one.size
        found.append(float(-(shares * np.log(shares)).sum()))
    return within(torch.tensor(found), 0, float(np.log(bins)), "the entropy of a map")


@dataclass(frozen=True, eq=False)
class Randomised:
    """Complexity (N,) of maps of the model as it is and of the randomised one.

    rise: (after - before) / before, at least -1; above 0 for a map that depends on what the model has
    learned. NaN where a map of the model as it is is constant.
    """

    before: Tensor
    after: Tensor

    @property
    def rise(self) -> Tensor:
        rise = (self.after - self.before) / self.before
        return within(torch.where(self.before > 0, rise, torch.nan), -1, torch.inf, "the rise in complexity")


def rise_in_complexity(
    model: nn.Module, explain: Callable[[nn.Module], Tensor], *, seed: int = 0
) -> Randomised:
    """How much more complex maps become once all of the model's parameters are random.

    Parameters
    ----------
    model
        Left as it was, also when `explain` raises.
    explain
        A model to maps (N, H, W) of pictures and classes that it knows.

    Raises
    ------
    ModelError
        If the model is a black box or has no parameters.
    DataError
        If maps are of no such shape, or NaN.

    Notes
    -----
    Efficient model-parameter randomisation test, Hedström et al. 2024 (arXiv 2401.06465), section 4.2: full
    randomisation in place of layer by layer, and the rise in complexity in place of a similarity, which
    noise decides. There parameters are drawn anew, here they are shuffled.
    """
    before = _explained(explain(model))
    with randomised(model, seed=seed):
        after = _explained(explain(model))
    return Randomised(complexity(before), complexity(after))


def _explained(maps: Tensor) -> Tensor:
    if maps.dim() != 3:
        raise DataError(f"an explanation must be maps (N, H, W), not {tuple(maps.shape)}")
    check_maps(maps, (maps.shape[1], maps.shape[2]), len(maps))
    return maps


@dataclass(frozen=True, eq=False)
class Stability:
    """How alike maps of pictures and of noisy copies are, each (N,), the mean over copies.

    rank: Spearman's correlation over pixels, in [-1, 1]; NaN where a map is constant. overlap: share that the
    pixels that matter most have in common, in [0, 1], by chance `top`. Both NaN where no copy kept its
    prediction. noise: (N,) standard deviation that was used, the mean over copies. unstable: how many copies
    were left out, because even the smallest noise changed the prediction.
    """

    rank: Tensor
    overlap: Tensor
    noise: Tensor
    top: float
    unstable: int


def stability(
    model: nn.Module,
    images: Tensor,
    explain: Callable[[Tensor, Tensor], Tensor],
    classes: Tensor,
    *,
    noise: float = 0.02,
    draws: int = 2,
    top: float = 0.1,
    seed: int = 0,
) -> Stability:
    """How alike maps stay when pictures change so little that the prediction does not.

    Parameters
    ----------
    images
        float (N, C, H, W) in [0, 1].
    explain
        Pictures (M, C, H, W) and classes (M,) to maps (M, H, W).
    classes
        int (N,) that are explained.
    noise
        Standard deviation of Gaussian noise; where it changes the prediction, it is halved up to six times.
    draws
        Noisy copies of each picture.
    top
        Share of the pixels whose overlap is measured.

    Raises
    ------
    ParamsError
        If there is no draw, no noise, or `top` is not between 0 and 1.
    DataError
        If images are not in [0, 1], or maps do not fit them or are NaN.
    """
    if draws < 1 or not noise > 0 or not 0 < top < 1:
        raise ParamsError(
            f"stability needs a draw, noise above 0 and a share between 0 and 1, not {draws}, {noise}, {top}"
        )
    check_pictures(images)
    size = (images.shape[2], images.shape[3])
    predicted = logits(model, images).argmax(1)
    original = explain(images, classes)
    check_maps(original, size, len(images))
    first = max(1, round(top * size[0] * size[1]))
    ranks, overlaps = np.full((2, draws, len(images)), np.nan)
    used = torch.full((draws, len(images)), torch.nan)
    unstable = 0
    for draw in range(draws):
        copies, scale = _noisy(model, images, predicted, noise, (draw, seed))
        kept = torch.nonzero(scale > 0)[:, 0]
        unstable += len(images) - len(kept)
        if not len(kept):
            continue
        rows = kept.cpu().numpy()
        used[draw, rows] = scale[kept].cpu()
        maps = explain(copies[kept], classes[kept.to(classes.device)])
        check_maps(maps, size, len(kept))
        before = original[kept.to(original.device)]
        common = (order_of(before) < first) & (order_of(maps) < first)
        overlaps[draw, rows] = common.sum((1, 2)).cpu().numpy() / first
        ranks[draw, rows] = _spearman(before, maps)
    rank, overlap = (torch.from_numpy(one).nanmean(0).float() for one in (ranks, overlaps))
    return Stability(
        within(rank, -1, 1, "a rank correlation"),
        within(overlap, 0, 1, "an overlap"),
        used.nanmean(0),
        top,
        unstable,
    )


def _noisy(
    model: nn.Module, images: Tensor, predicted: Tensor, noise: float, draw: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Copies with the same prediction, and the noise (N,) in them, 0 where there is none with it."""
    drawn = torch.stack(
        [torch.randn(one.shape, generator=own_generator(one, f"noise {draw[0]}", draw[1])) for one in images]
    ).to(images)
    copies, scale = images.clone(), torch.zeros(len(images), device=images.device)
    left = torch.arange(len(images), device=images.device)
    for halving in range(_HALVINGS + 1):
        now = noise / 2**halving
        tried = (images[left] + now * drawn[left]).clamp(0, 1)
        holds = logits(model, tried).argmax(1) == predicted[left]
        copies[left[holds]], scale[left[holds]] = tried[holds], now
        left = left[~holds]
        if not len(left):
            break
    return copies, scale


def _spearman(first: Tensor, second: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Spearman's rank correlation (N,) of maps (N, H, W), ties at their mean rank; NaN for a constant one."""
    a, b = (rankdata(one.detach().flatten(1).cpu().numpy(), axis=1) for one in (first, second))
    a, b = (one - one.mean(1, keepdims=True) for one in (a, b))
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = np.full(len(a), np.nan)
    np.divide((a * b).sum(1), spread, out=found, where=spread > 0)
    return found
