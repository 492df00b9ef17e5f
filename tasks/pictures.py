"""What the steps take from the data: pictures of audited classes, and clean backgrounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from candling.data import Pictures, unit

__all__ = ["audited_rows", "donors_in_turn", "drawn"]


def audited_rows(pictures: Pictures, audited: Sequence[int]) -> list[int]:
    """Rows of the pictures that show an audited class."""
    return [row for row, label in enumerate(pictures.labels.tolist()) if label in audited]


def donors_in_turn(donors: Pictures) -> Tensor:
    """Clean backgrounds (D, 3, H, W) in [0, 1] sorted by environment: every k-th row covers all alike."""
    order = sorted(range(len(donors)), key=lambda row: (donors.environments[row], row))
    return unit(donors.images[torch.tensor(order)])


def drawn(pictures: Pictures, seed: int) -> Pictures:
    """The pictures in an order drawn by the audit's seed; by 0 as they lie."""
    if not seed:
        return pictures
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    return pictures.take(order.tolist())
