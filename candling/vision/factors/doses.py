"""Doses: what brings each picture to a value of a factor that other pictures have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from candling.data import unit
from candling.vision.factors.transforms import Factor

__all__ = ["CHUNK", "Array", "changed", "doses_of", "measured", "targets_of", "turned"]

Array = NDArray[np.float64]

CHUNK = 32  # pictures changed at a time
_GRID = 9  # doses at which a picture is measured to find the one that gives it a value


def changed(factor: Factor, images: Tensor, doses: Array) -> Tensor:
    amounts = torch.as_tensor(doses, dtype=images.dtype, device=images.device)
    parts = zip(images.split(CHUNK), amounts.split(CHUNK), strict=True)
    return torch.cat([factor.apply(one, amount) for one, amount in parts])


def measured(factor: Factor, images: Tensor) -> Array:
    parts = [factor.measure(unit(part)) for part in images.split(CHUNK)]
    return torch.cat(parts).double().cpu().numpy()


def targets_of(
    factor: Factor, values: Array, others: Array | None, levels: Sequence[float]
) -> tuple[float, Array]:
    """Values that the given shares of the pictures lie below; of a circular one, from its mean direction."""
    pooled = values if others is None else np.concatenate([values, others])
    if not factor.circular:
        return 0.0, np.quantile(pooled, levels)
    centre = float(np.angle(np.exp(2j * np.pi * pooled).mean()) / (2 * np.pi))
    return centre, np.quantile(turned(pooled - centre), levels)


def turned(turns: Array) -> Array:
    return np.asarray((turns + 0.5) % 1 - 0.5)


def doses_of(factor: Factor, images: Tensor, values: Array, centre: float, targets: Array) -> list[Array]:
    """For each target the doses (N,) that bring the pictures there, or as near as ordinary ones go."""
    if factor.circular:
        away = turned(values - centre)
        return [np.clip(turned(target - away), factor.least, factor.most) for target in targets]
    grid = np.unique(np.concatenate([np.linspace(factor.least, factor.most, _GRID), [0.0]]))
    curve = np.stack([measured(factor, changed(factor, images, np.full(len(images), one))) for one in grid])
    # What clips or is coarse may turn back a little; what is asked for is the nearest dose on the rise.
    rising = np.maximum.accumulate(curve, 0)
    return [
        np.array([np.interp(target, rising[:, row], grid) for row in range(len(images))])
        for target in targets
    ]
