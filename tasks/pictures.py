"""What the steps take from the data: stratified samples and clean backgrounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from candling.data import Pictures

__all__ = ["audited_rows", "donors_in_turn", "stratified", "unit"]


def unit(images: Tensor) -> Tensor:
    """uint8 images as float in [0, 1]."""
    return images.float() / 255


def audited_rows(pictures: Pictures, audited: Sequence[int]) -> list[int]:
    """Rows of the pictures that show an audited class."""
    return [row for row, label in enumerate(pictures.labels.tolist()) if label in audited]


def stratified(pictures: Pictures, count: int) -> list[int]:
    """Rows of about `count` pictures, the same number from each group, spread evenly over it.

    Files often lie in an order that means something, so that the first would be of one kind.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(pictures.groups):
        rows[group].append(row)
    each = -(-count // len(rows))
    return sorted(
        group[i * len(group) // each] if each < len(group) else group[i]
        for group in rows.values()
        for i in range(min(each, len(group)))
    )


def donors_in_turn(donors: Pictures) -> Tensor:
    """Clean backgrounds (D, 3, H, W) in [0, 1] sorted by environment: every k-th row covers all alike."""
    order = sorted(range(len(donors)), key=lambda row: (donors.environments[row], row))
    return unit(donors.images[torch.tensor(order)])
