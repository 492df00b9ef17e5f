"""Progress: rows that are done, and the time that is left, on a clock of the test's own."""

from __future__ import annotations

import io

import pytest
import torch

from candling.vision import advance as module
from candling.vision.advance import Advance, Meter, line
from candling.vision.climbing import Climb, Climbed


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def left(steps: int) -> Climbed:
    return Climbed(torch.zeros(1, 1, 1, dtype=torch.uint8), steps, 0.0)


def test_time_left_is_that_of_the_passes_to_come(clock: Clock) -> None:
    told: list[Advance] = []
    meter = Meter(4, Climb(steps=10), told.append)
    meter.finished(0, left(10), True)  # from a run before: it is done, and is no work of this one
    assert told[-1] == Advance(1, 4, 0.0, None)
    clock.now += 5
    meter.passes(10, 30)
    assert told[-1] == Advance(1, 4, 1 / 3, pytest.approx(10.0))
    # A row leaves at its fourth step: six passes will not be needed.
    meter.finished(1, left(4), False)
    assert told[-1] == Advance(2, 4, 10 / 24, pytest.approx(7.0))
    meter.passes(24, 30)
    meter.finished(2, left(10), False)
    assert told[-1] == Advance(3, 4, 1.0, pytest.approx(0.0))
    meter.finished(3, left(10), False)
    assert told[-1] == Advance(4, 4, 1.0, 0.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "3 of 8 rows"),
        (0.4, "3 of 8 rows, about 0 s left"),
        (89.0, "3 of 8 rows, about 89 s left"),
        (125.0, "3 of 8 rows, about 2 min left"),
        (9000.0, "3 of 8 rows, about 2.5 h left"),
    ],
)
def test_it_says_itself(seconds: float | None, words: str) -> None:
    assert str(Advance(3, 8, 0.4, seconds)) == words


def test_one_line_is_written_over(clock: Clock) -> None:
    out = io.StringIO()
    tell = line(out, every=1.0)
    tell(Advance(0, 2, 0.1, 9.0))
    clock.now += 0.5
    tell(Advance(0, 2, 0.2, 8.0))  # too soon
    clock.now += 0.6
    tell(Advance(1, 2, 0.5, 5.0))
    tell(Advance(2, 2, 1.0, 0.0))
    first, second, last = out.getvalue().split("\r")[1:]
    assert (first, second) == ("0 of 2 rows, about 9 s left", "1 of 2 rows, about 5 s left")
    assert last == f"{'2 of 2 rows':<{len(first)}}\n"
