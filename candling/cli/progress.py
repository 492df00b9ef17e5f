"""How far an audit is: bars on a terminal, plain lines elsewhere; on stderr, as results go to stdout."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from candling.report.text import quiet

if TYPE_CHECKING:
    from types import TracebackType

    from rich import progress as rich_progress

__all__ = ["Progress"]

# In a log a long step says now and then that it is alive.
_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Tells a person which step runs for which subject, how far it is and how long it will take.

    Steps may start, advance and finish in any thread; a step that is taken from the store only finishes.

    Parameters
    ----------
    stream
        Where to write; stderr unless given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._lock = threading.RLock()
        self._started: dict[tuple[str, str], float] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._bars: dict[tuple[str, str], rich_progress.TaskID] = {}
        self._display: rich_progress.Progress | None = None

    def __enter__(self) -> Progress:
        if not self._stream.closed and self._stream.isatty():
            from rich import progress
            from rich.console import Console

            self._display = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[said]}", markup=False),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._display is not None:
                self._display.stop()
                self._display = None

    def start(self, step: str, subject: str, total: int | None) -> None:
        """`step` begins for `subject`; `total` is how much there is to do, where that is known."""
        with self._lock:
            now = time.monotonic()
            self._started[step, subject] = self._said[step, subject] = now
            if self._display is not None:
                self._drop_bar(step, subject)
                self._bars[step, subject] = self._display.add_task(
                    self._name(step, subject), total=total, said="" if total is None else f"0/{total}"
                )

    def advance(
        self,
        step: str,
        subject: str,
        done: int,
        total: int,
        *,
        said: str | None = None,
        left: str = "",
    ) -> None:
        """`done` of `total` are done.

        `said` says so in other words; `left` is the time to come in words, for a log, as bars have their own.
        """
        with self._lock:
            key = (step, subject)
            if key not in self._started:
                self.start(step, subject, total)
            if self._display is not None:
                said = f"{done}/{total}" if said is None else said
                self._display.update(self._bars[key], completed=done, total=total, said=said)
            elif time.monotonic() - self._said[key] >= _SECONDS_BETWEEN_LINES:
                self._said[key] = time.monotonic()
                said = f"{done} of {total}" if said is None else said
                self._line(f"{self._name(step, subject)} … {said}{left and f', {left}'}")

    def finish(self, step: str, subject: str, hit: bool) -> None:
        """`step` is done for `subject`; `hit` if it was taken from the store."""
        with self._lock:
            started = self._started.pop((step, subject), None)
            self._said.pop((step, subject), None)
            self._drop_bar(step, subject)
            seconds = "" if started is None else f" in {time.monotonic() - started:.1f} s"
            self._line(f"{self._name(step, subject)} … {'store hit' if hit else f'done{seconds}'}")

    @staticmethod
    def _name(step: str, subject: str) -> str:
        return quiet(f"{subject}: {step}" if subject else step)

    def _drop_bar(self, step: str, subject: str) -> None:
        bar = self._bars.pop((step, subject), None)
        if bar is not None and self._display is not None:
            self._display.remove_task(bar)

    def _line(self, text: str) -> None:
        if self._display is not None:
            self._display.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            print(text, file=self._stream, flush=True)
        except (OSError, ValueError):
            # Nobody reads the progress any more; that is no reason to stop an audit.
            pass
