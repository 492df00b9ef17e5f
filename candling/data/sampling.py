"""What a model is shown of the pictures: a sample spread over the groups, as numbers in [0, 1]."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from candling.data.pictures import Pictures

__all__ = ["stratified", "unit"]


def unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]; uint8 is scaled, floats are taken to be in that range."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def stratified(pictures: Pictures, count: int, *, seed: int = 0) -> list[int]:
    """Rows of about `count` pictures, the same number from each group, spread evenly over it or drawn.

    Files often lie in an order that means something, so that the first would be of one kind.

    Parameters
    ----------
    count
        At most one more for each group is taken; fewer where groups are smaller than their part.
    seed
        0: spread evenly; any other draws the rows of each group.

    Returns
    -------
    list of int
        In ascending order, each row once; of no pictures none.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(pictures.groups):
        rows[group].append(row)
    if seed:
        generator = torch.Generator().manual_seed(seed)
        for name, own in sorted(rows.items()):
            rows[name] = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
    each = -(-count // max(1, len(rows)))
    return sorted(
        group[i * len(group) // each] if each < len(group) else group[i]
        for group in rows.values()
        for i in range(min(each, len(group)))
    )
