"""Dots with whiskers on an axis, in percent of its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Axis", "Bar", "bar_of"]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """Where `value` lies, in percent of the axis' length."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True)
class Bar:
    """A dot with its whisker; everything in percent of the axis."""

    value: float
    low: float | None
    high: float | None
    bounds: tuple[float, ...]
    chance: float | None
    zero: float | None


def bar_of(
    axis: Axis,
    value: float | None,
    low: float | None,
    high: float | None,
    bounds: Sequence[float] = (),
    chance: float | None = None,
) -> Bar | None:
    """The bar of a value with its interval; None where there is no value."""
    if value is None:
        return None
    return Bar(
        value=axis.x(value),
        low=None if low is None else axis.x(low),
        high=None if high is None else axis.x(high),
        bounds=tuple(axis.x(bound) for bound in bounds),
        chance=None if chance is None else axis.x(chance),
        zero=axis.x(0.0) if axis.low < 0.0 < axis.high else None,
    )
