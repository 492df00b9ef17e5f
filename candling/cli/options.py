"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["STDOUT", "Chat", "Debug", "debugging"]

STDOUT = Path("-")
"""A FILE that is standard output, on which there is nothing else then."""


def _set_debug(value: bool) -> bool:
    # In the environment, so that worker processes see it too.
    if value:
        os.environ["CANDLING_DEBUG"] = "1"
    return value


Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show tracebacks.")]

Chat = Annotated[
    bool, typer.Option("--chat", help="Ask inside of the model's chat template; the answer is what counts.")
]


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return os.environ.get("CANDLING_DEBUG", "") not in ("", "0")
