"""Counterfactuals: pictures that differ in one thing, to see whether the prediction follows it.

Objects are cut out with their masks and pasted onto clean backgrounds (background challenge, Xiao et al.
2021, arXiv 2006.09994). A swap *conflicts* when the new background is the one that the other class came
with; swaps whose background agrees with the object say nothing about following.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Swaps", "associated_backgrounds", "feathered", "flat_background", "pair_swaps", "paste"]


@dataclass(frozen=True)
class Swaps:
    """Rows of objects, rows of the donors that they are pasted onto, and the class that each donor is of."""

    objects: tuple[int, ...]
    backgrounds: tuple[int, ...]
    pulls: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.objects)


def associated_backgrounds(labels: Sequence[int], environments: Sequence[str]) -> dict[int, str]:
    """The background that each class came with: the one with the largest lift over the other classes.

    Parameters
    ----------
    labels, environments
        Of the training data, one an image.

    Returns
    -------
    dict
        Class index to environment; P(environment | class) - P(environment | other classes) is largest.
    """
    pairs = Counter(zip(labels, environments, strict=True))
    totals = Counter(labels)
    everything = Counter(environments)
    out = {}
    for label in sorted(totals):
        others = max(len(labels) - totals[label], 1)

        def lift(environment: str, label: int = label, others: int = others) -> float:
            inside = pairs[label, environment]
            return inside / totals[label] - (everything[environment] - inside) / others

        out[label] = max(sorted(everything), key=lift)
    return out


def pair_swaps(
    labels: Sequence[int],
    donors: Sequence[str],
    came_with: Mapping[int, str],
    *,
    classes: int,
    each: int,
    conflict: bool,
) -> Swaps:
    """Which object goes onto which background; each is used once, so that swaps are independent samples.

    Parameters
    ----------
    labels
        Class index of each picture that has an object; -1 where there is none.
    donors
        Environment of each clean background.
    came_with
        As `associated_backgrounds` gives it.
    classes
        Number of classes.
    each
        Objects tried of each class: its first ones.
    conflict
        True: onto the background that another class came with, the other classes in turn. False: the
        placebo, onto another background of the object's own class.

    Returns
    -------
    Swaps
        Fewer than `each` a class where clean backgrounds run out; none where all classes came with the
        same background.
    """
    free: dict[str, list[int]] = defaultdict(list)
    for row, environment in enumerate(donors):
        free[environment].append(row)
    rows: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows[label].append(row)
    found = []
    for label in range(classes):
        others = [k for k, e in came_with.items() if k not in (label, -1) and e != came_with.get(label)]
        wanted = others if conflict else [label] if label in came_with else []
        if not wanted:
            continue
        for turn, row in enumerate(rows[label][:each]):
            pull = wanted[turn % len(wanted)]
            if pool := free[came_with[pull]]:
                found.append((row, pool.pop(0), pull))
    return Swaps(*(tuple(column) for column in zip(*found, strict=True))) if found else Swaps((), (), ())


def feathered(masks: Tensor) -> Tensor:
    """Masks bool (N, H, W) as weights (N, 1, H, W) in [0, 1] with an edge of one pixel."""
    return F.avg_pool2d(F.pad(masks.float()[:, None], (1, 1, 1, 1), mode="replicate"), 3, 1)


def paste(images: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """Objects of images (N, 3, H, W), cut by masks bool (N, H, W), onto backgrounds (N, 3, H, W)."""
    weight = feathered(masks)
    return weight * images + (1 - weight) * backgrounds


def flat_background(images: Tensor, masks: Tensor, colour: Tensor) -> Tensor:
    """The object alone on one colour (3,)."""
    return paste(images, masks, torch.broadcast_to(colour.view(1, 3, 1, 1), images.shape))
