"""Batches that find their own size: where memory runs out, half as many rows are tried at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from candling.errors import ModelError, ParamsError

__all__ = ["Batches", "MemoryRanOut"]

T = TypeVar("T")

# What processors' allocators say; on an accelerator there is an error of its own.
_SAID = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation")


class MemoryRanOut(UserWarning):
    """Memory ran out for a batch, and work goes on with smaller ones."""


class Batches:
    """Rows some at a time; a size that memory was found to have no room for is not tried again.

    Parameters
    ----------
    size
        Rows at a time to begin with.

    Raises
    ------
    ParamsError
        If the size is below 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ParamsError(f"a batch has one row at least, not {size}")
        self.size = size
        self._said = False

    def over(self, count: int, run: Callable[[slice], T]) -> list[T]:
        """What `run` gives for rows 0 to `count`, batch by batch.

        Parameters
        ----------
        run
            A function of the rows of a batch. It may be asked for rows again, in smaller batches; where
            there is none it is asked once, for no rows.

        Raises
        ------
        ModelError
            If there is no memory for a single row.
        """
        found: list[T] = []
        done = 0
        while done < count or not found:
            rows = slice(done, min(done + self.size, count))
            # The error holds what the failed pass had made, and is let go of before the next one.
            ran_out = False
            try:
                found.append(run(rows))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if rows.stop - rows.start <= 1:
                    raise ModelError(
                        "memory ran out for a single picture; give smaller pictures or a smaller model"
                    ) from error
                ran_out = True
            if ran_out:
                self._halve(rows.stop - rows.start)
            else:
                done = rows.stop
        return found

    def _halve(self, tried: int) -> None:
        self.size = tried // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not self._said:
            self._said = True
            warnings.warn(
                f"memory ran out for {tried} pictures at a time; going on with {self.size}, or fewer: "
                f"batch={self.size} would begin there",
                MemoryRanOut,
                stacklevel=4,
            )


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(said in str(error).lower() for said in _SAID)
