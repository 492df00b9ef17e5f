"""Writing results to stdout so that neither a closed pipe nor a full disk changes what they mean."""

from __future__ import annotations

import os
import shutil
import sys

__all__ = ["emit", "is_terminal", "width"]

# Wide enough for logs that no table row is folded and `grep` finds what it looks for.
_LOG_WIDTH = 120


def is_terminal() -> bool:
    """Whether stdout is a terminal that takes colour."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns of the terminal, or of a log."""
    return max(40, shutil.get_terminal_size((80 if sys.stdout.isatty() else _LOG_WIDTH, 24)).columns)


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail as well."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass


def emit(text: str) -> None:
    """Write `text` to stdout and flush it; a reader that left early (`| head`) is no error.

    Raises
    ------
    OSError
        If stdout is a file on a full disk.
    """
    encoding = sys.stdout.encoding or "utf-8"
    safe = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(safe)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError:
        _forget_stdout()
        raise
