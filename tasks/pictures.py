"""What the steps take from the data: pictures of audited classes, and clean backgrounds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from candling.data import Pictures, unit

__all__ = ["audited_rows", "donors_in_turn"]


def audited_rows(pictures: Pictures, audited: Sequence[int]) -> list[int]:
    """Rows of the pictures that show an audited class."""
    return [row for row, label in enumerate(pictures.labels.tolist()) if label in audited]


def donors_in_turn(donors: Pictures) -> Tensor:
    """Clean backgrounds (D, 3, H, W) in [0, 1] sorted by environment: every k-th row covers all alike."""
    order = sorted(range(len(donors)), key=lambda row: (donors.environments[row], row))
    return unit(donors.images[torch.tensor(order)])
