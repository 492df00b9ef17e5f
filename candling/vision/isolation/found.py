"""What every method is asked and what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from candling.models import Batches, log_odds, logits

__all__ = ["Asked", "Found", "Pair", "Progress", "odds_of"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The pictures and classes that evidence is wanted for.

    images: float (N, C, H, W) in [0, 1]. classes: int64 (N, K). odds: (N, K) log-odds of the classes for the
    whole pictures. batches: how many pictures go through the model at a time. progress: told of images done.
    """

    model: nn.Module
    images: Tensor
    classes: Tensor
    odds: Tensor
    batches: Batches
    progress: Progress | None = None

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image (P,) and class (P,) of each pair that is asked for, and the pair (N, K) of each place.

        A class that is asked for twice of an image is one pair.
        """
        count, each = self.classes.shape
        image = torch.arange(count, device=self.classes.device)[:, None].expand(-1, each)
        wanted = torch.stack([image, self.classes], 2).flatten(0, 1)
        pairs, place = wanted.unique(dim=0, return_inverse=True)
        return pairs[:, 0], pairs[:, 1], place.view(count, each)

    def tell(self, done: int) -> None:
        """Say that so many images are done."""
        if self.progress is not None:
            self.progress(done, len(self.images))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two windows of an image, and what they do for a class beyond what each does for itself, in log-odds.

    image: its row. label: the class. first, second: top, left, bottom and right in pixels. shown: above 0
    where, all else hidden, both together give more than one and the other: they count only together. hidden:
    above 0 where hiding both takes more than hiding one and the other: either is enough. NaN where the
    method does not show windows alone.
    """

    image: int
    label: int
    first: tuple[int, int, int, int]
    second: tuple[int, int, int, int]
    shown: float
    hidden: float

    @property
    def strength(self) -> float:
        """The larger of the two, whatever its sign."""
        return max(abs(self.hidden), 0.0 if math.isnan(self.shown) else abs(self.shown))


@dataclass(frozen=True)
class Found:
    """maps: (N, K, H, W). evaluations: passes forward and back, each counted once for each picture in it."""

    maps: Tensor
    evaluations: int
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


def odds_of(
    asked: Asked, count: int, compose: Callable[[slice], Tensor], classes: Tensor | None = None
) -> Tensor:
    """Log-odds of `count` pictures that are made a batch at a time, so that few exist at once.

    Parameters
    ----------
    compose
        Rows to pictures (rows, C, H, W).
    classes
        (count, K) classes of each row.

    Returns
    -------
    Tensor
        (count, K), or of all classes where none are given.
    """
    parts: list[Tensor] = []
    done = 0
    while done < count:
        rows = slice(done, min(done + asked.batches.size, count))
        found = log_odds(asked.model, logits(asked.model, compose(rows), batch=asked.batches))
        parts.append(found if classes is None else found.gather(1, classes[rows].to(found.device)))
        done = rows.stop
    return torch.cat(parts)
