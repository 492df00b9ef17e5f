"""How an attack walks: steps down the gradient, and for projected descent back into a ball after each.

Balls are around the picture, in the picture's own units: pixels in [0, 1].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from candling.errors import ParamsError

__all__ = ["LEVELS", "Ball", "GradientDescent", "L2PGD", "LinfPGD", "Method"]

LEVELS = 255
_HAIR = 1e-3  # of a level, by which float32 may miss one
_SHORTEST = 0.25 / LEVELS


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Settings of a walk of `steps` steps; its pictures are (C, H, W) in [0, 1]."""

    norm: ClassVar[Literal["linf", "l2"]] = "linf"
    steps: int

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("steps", "restarts"):
                least = 1 if one.name == "steps" else 0
                if not isinstance(value, int) or isinstance(value, bool) or value < least:
                    raise ParamsError(f"{one.name} is {value!r}; it must be a whole number from {least}")
            elif one.name in ("epsilon", "stepsize", "rate"):
                if value is None and one.name == "stepsize":
                    continue
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not number or not math.isfinite(value) or value <= 0:
                    raise ParamsError(f"{one.name} is {value!r}; it must be a number above 0")

    @abstractmethod
    def step(self, here: Tensor, gradient: Tensor, origin: Tensor) -> Tensor:
        """Where one step leads from `here`, not beyond what is allowed around `origin`."""

    def saved(self, here: Tensor, origin: Tensor) -> Tensor:
        """`here` as it would be saved in 8 bits, still allowed around `origin`, which is so already."""
        return (here * LEVELS).round() / LEVELS

    def distance(self, picture: Tensor, origin: Tensor) -> float:
        """Of a picture from the original, in the method's norm: the largest change of a pixel."""
        return float((picture - origin).abs().max())


@dataclass(frozen=True, kw_only=True)
class GradientDescent(Method):
    """The textbook's: the picture itself descends, x ← clip(x - rate · ∇ descent(x), 0, 1).

    No ball holds it. rate: of the gradient, in [0, 1] of a pixel.
    """

    steps: int = 100
    rate: float = 1.0

    def step(self, here: Tensor, gradient: Tensor, origin: Tensor) -> Tensor:
        return (here - self.rate * gradient).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Ball(Method):
    """Projected gradient descent (Madry et al. 2018, arXiv 1706.06083) within epsilon of the picture.

    epsilon: radius of the ball. stepsize: length of a step; None: 2.5 · epsilon / steps, with which every
    point of the ball can be reached from any other, and for `LinfPGD` a quarter of a level of 8 bits at
    least. random_start: whether the first walk, too, starts from a
    point of the ball drawn at random. restarts: walks from random points that follow where one did not fool.
    """

    epsilon: float
    steps: int = 40
    stepsize: float | None = None
    random_start: bool = False
    restarts: int = 0

    @property
    def length(self) -> float:
        """Of a step."""
        return 2.5 * self.epsilon / self.steps if self.stepsize is None else self.stepsize

    @abstractmethod
    def drawn(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        """A point of the ball and of [0, 1] at random."""

    @abstractmethod
    def project(self, here: Tensor, origin: Tensor) -> Tensor:
        """The nearest point of the ball and of [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class LinfPGD(Ball):
    """Steps along the gradient's sign; no pixel changes by more than epsilon."""

    epsilon: float = 8 / LEVELS

    @property
    def length(self) -> float:
        """Of a step. Shorter ones would leave what is saved the same for many of them."""
        return max(super().length, _SHORTEST) if self.stepsize is None else self.stepsize

    def step(self, here: Tensor, gradient: Tensor, origin: Tensor) -> Tensor:
        return self.project(here - self.length * gradient.sign(), origin)

    def project(self, here: Tensor, origin: Tensor) -> Tensor:
        return (origin + (here - origin).clamp(-self.epsilon, self.epsilon)).clamp(0, 1)

    def drawn(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        noise = 2 * torch.rand(origin.shape, generator=generator) - 1
        return (origin + self.epsilon * noise.to(origin)).clamp(0, 1)

    def saved(self, here: Tensor, origin: Tensor) -> Tensor:
        """The nearest level that the ball holds."""
        most = math.floor(self.epsilon * LEVELS + _HAIR)
        change = ((here - origin) * LEVELS).round().clamp(-most, most)
        return ((origin * LEVELS).round() + change).clamp(0, LEVELS) / LEVELS


@dataclass(frozen=True, kw_only=True)
class L2PGD(Ball):
    """Steps along the gradient at a fixed length; the change has the length epsilon at most."""

    norm: ClassVar[Literal["linf", "l2"]] = "l2"
    epsilon: float = 1.0

    def step(self, here: Tensor, gradient: Tensor, origin: Tensor) -> Tensor:
        return self.project(here - self.length * (gradient * (1 / _length(gradient))), origin)

    def project(self, here: Tensor, origin: Tensor) -> Tensor:
        change = here - origin
        return (origin + change * (self.epsilon / _length(change)).clamp(max=1)).clamp(0, 1)

    def drawn(self, origin: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the ball: a normal direction, and a radius by the volume that it holds."""
        direction = torch.randn(origin.shape, generator=generator)
        radius = torch.rand(1, generator=generator) ** (1 / origin.numel())
        noise = (direction / _length(direction) * radius).to(origin)
        return (origin + self.epsilon * noise).clamp(0, 1)

    def distance(self, picture: Tensor, origin: Tensor) -> float:
        """The length of the change."""
        return float((picture.double() - origin.double()).norm())

    def saved(self, here: Tensor, origin: Tensor) -> Tensor:
        """The largest changes first, each a level at least, as many as are together no longer than now.

        Rounding each pixel for itself would lose all changes below half a level, which may be all of them,
        and leave the ball where most are a little above.
        """
        start = (origin * LEVELS).round()
        change = here * LEVELS - start
        budget = min(float(change.norm()), self.epsilon * LEVELS) + _HAIR
        size, order = change.abs().flatten().sort(descending=True)
        whole = torch.where(size > 0, size.round().clamp_min(1), 0.0)
        # In double: a sum of 10⁵ squares has more digits than float32.
        kept = whole.double().square().cumsum(0) <= budget**2
        rounded = torch.zeros_like(size).scatter(0, order, torch.where(kept, whole, 0.0))
        moved = start + rounded.view_as(change) * change.sign()
        return moved.clamp(0, LEVELS) / LEVELS


def _length(change: Tensor) -> Tensor:
    """Of a picture as a vector, and not quite 0."""
    found: Tensor = change.flatten().norm().clamp_min(1e-12)
    return found
