"""Progress: plain lines in a log, bars on a terminal, from any thread."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from candling.cli import progress as module
from candling.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_a_step() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        progress.start("isolate features", "before", None)
        progress.advance("isolate features", "before", 3, 8)
        progress.finish("isolate features", "before", hit=False)
        progress.finish("load model", "after", hit=True)
        progress.finish("draw scenes", "", hit=False)
    first, second, third = out.getvalue().splitlines()
    assert re.fullmatch(r"before: isolate features … done in \d+\.\d s", first)
    assert (second, third) == ("after: load model … store hit", "draw scenes … done")


def test_a_long_step_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    out = io.StringIO()
    with Progress(out) as progress:
        progress.advance("train", "before", 3, 8)
    assert out.getvalue() == "before: train … 3 of 8\n"


def test_what_is_said_in_place_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    out, terminal = io.StringIO(), Terminal()
    for stream in (out, terminal):
        with Progress(stream) as progress:
            progress.advance("climb", "", 300, 1000, said="3 of 8 rows", left="about 2 min left")
    assert out.getvalue() == "climb … 3 of 8 rows, about 2 min left\n"
    assert "3 of 8 rows" in terminal.getvalue()
    assert "about" not in terminal.getvalue(), "bars have a time of their own"


def test_a_terminal_gets_bars_and_the_lines_stay() -> None:
    out = Terminal()
    with Progress(out) as progress:
        progress.start("isolate [features]", "before", 8)
        progress.start("isolate [features]", "before", 8)
        progress.advance("isolate [features]", "before", 3, 8)
        progress.advance("train", "before", 3, 8)
        progress.finish("isolate [features]", "before", hit=False)
    assert "before: isolate [features] … done in" in out.getvalue()
    assert "before: train" in out.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_threads_share_it(stream: type[io.StringIO]) -> None:
    out = stream()

    def work(i: int) -> None:
        progress.start("step", str(i), 10)
        for done in range(10):
            progress.advance("step", str(i), done, 10)
        progress.finish("step", str(i), hit=bool(i % 2))

    with Progress(out) as progress, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert len(re.findall(r"\d+: step … (?:store hit|done in)", out.getvalue())) == 40


def test_a_closed_stream_stops_no_audit() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        out.close()
        with pytest.raises(ValueError, match="closed file"):
            print("the stream itself refuses", file=out)
        progress.finish("step", "before", hit=True)  # and is not heard


def test_the_display_is_closed_by_an_error() -> None:
    progress = Progress(Terminal())

    def crash() -> None:
        with progress:
            progress.start("step", "before", None)
            raise KeyError

    with pytest.raises(KeyError):
        crash()
    assert progress._display is None
