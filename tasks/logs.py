"""What Prefect logs while a person watches: errors made for people in one line, crashes in full."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from candling.errors import CandlingError

__all__ = ["one_line_errors"]

_LOGGERS = ("prefect.task_runs", "prefect.flow_runs")


def _plain(record: logging.LogRecord) -> bool:
    """Take the traceback from a CandlingError, and drop the states that only repeat what was told."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, CandlingError):
        record.msg, record.args, record.exc_info = str(error), (), None
    return record.levelno < logging.ERROR or not record.getMessage().startswith("Finished in state ")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Log errors of steps as one line each."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_plain)
    try:
        yield
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(_plain)
