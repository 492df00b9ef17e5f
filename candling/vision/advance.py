"""How far a run is: rows done, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from candling.vision.climbing import Climb, Climbed

__all__ = ["Advance", "Meter", "line"]


@dataclass(frozen=True)
class Advance:
    """How far a run is.

    rows: that are done, of `of`. share: of the work of this run, in [0, 1]; rows that were kept from a run
    before are none. left: seconds, about; None as long as nothing is known of them.
    """

    rows: int
    of: int
    share: float
    left: float | None = None

    @property
    def counted(self) -> str:
        """Rows in words."""
        return f"{self.rows} of {self.of} rows"

    @property
    def remaining(self) -> str:
        """Time left in words; "" where nothing is known of it."""
        if self.left is None:
            return ""
        if self.left < 90:
            return f"about {self.left:.0f} s left"
        if self.left < 5400:
            return f"about {self.left / 60:.0f} min left"
        return f"about {self.left / 3600:.1f} h left"

    def __str__(self) -> str:
        return f"{self.counted}, {self.remaining}" if self.remaining else self.counted


class Meter:
    """Puts together what `climb` tells of passes and of finished rows.

    Work is counted in passes through the model. A row that leaves early takes its passes to come with it, so
    that the time left does not count them.
    """

    def __init__(self, rows: int, settings: Climb, tell: Callable[[Advance], None]) -> None:
        self._of, self._steps, self._tell = rows, settings.steps, tell
        self._rows = self._done = self._total = self._spared = 0
        self._begun = time.monotonic()

    def finished(self, place: int, row: Climbed, kept: bool) -> None:
        """A row is done, or was."""
        self._rows += 1
        if not kept:
            self._spared += max(0, self._steps - row.steps)
        self._say()

    def passes(self, done: int, total: int) -> None:
        """`done` passes of at most `total` are done."""
        self._done, self._total = done, total
        self._say()

    def _say(self) -> None:
        if self._rows == self._of:
            self._tell(Advance(self._rows, self._of, 1.0, 0.0))
            return
        share = self._done / max(1, self._total - self._spared)
        share = min(1.0, share)
        spent = time.monotonic() - self._begun
        self._tell(Advance(self._rows, self._of, share, spent * (1 - share) / share if share else None))


def line(stream: TextIO | None = None, *, every: float = 0.5) -> Callable[[Advance], None]:
    """A teller that writes one line over and over, such as below a notebook's cell.

    Parameters
    ----------
    stream
        None: stderr.
    every
        Seconds between two, at least; the last is always written.
    """
    out = sys.stderr if stream is None else stream
    said, longest = -every, 0

    def tell(advance: Advance) -> None:
        nonlocal said, longest
        whole, now = advance.rows == advance.of, time.monotonic()
        if whole or now - said >= every:
            text = advance.counted if whole else str(advance)
            longest = max(longest, len(text))
            out.write(f"\r{text:<{longest}}" + ("\n" if whole else ""))
            out.flush()
            said = now

    return tell
