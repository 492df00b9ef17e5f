"""Checks of methods' settings, each one sentence that names the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from candling.errors import ParamsError
from candling.models.reading import nearest

__all__ = ["check_choice", "check_number", "check_whole"]


def check_whole(name: str, value: Any, low: int = 1) -> None:
    """See that it is a whole number from `low`; ParamsError if not."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ParamsError(f"{name} is {value!r}; it must be a whole number from {low}")


def check_number(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """See that it is a number from `low` to `high`; ParamsError if not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        upto = "" if high == math.inf else f" to {high:g}"
        raise ParamsError(f"{name} is {value!r}; it must be a number from {low:g}{upto}")


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """See that it is one of the known words; ParamsError with the nearest if not."""
    if value not in known:
        raise ParamsError(f"there is no {name} {value!r}; {nearest(str(value), known)}")
