"""Answers that a command needs: from its flags, or asked for at a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from candling.errors import CandlingError, ParamsError

__all__ = ["NONE", "Asker", "none_or", "shown"]

NONE = "none"
"""What a person answers, or a flag says, where there is nothing of the kind."""

T = TypeVar("T")


def shown(text: str) -> str:
    """Text for a terminal: what would move its cursor is spelled out."""
    from candling.report.text import quiet

    return quiet(text)


def none_or(read: Callable[[str], str]) -> Callable[[str], str]:
    """Reads an answer that may be `NONE`, which is "" then."""

    def either(text: str) -> str:
        return "" if text.strip().lower() in ("", NONE) else read(text)

    return either


class Asker:
    """Asks for what no flag said; where nobody can be asked, defaults are taken.

    Questions and remarks go to stderr, so that stdout holds results alone.

    Parameters
    ----------
    asks
        Whether someone is there to answer.
    """

    def __init__(self, *, asks: bool) -> None:
        self.asks = asks
        if asks:
            _complete_paths()

    def __call__(
        self,
        question: str,
        given: str | None,
        check: Callable[[str], T],
        *,
        flag: str,
        default: str | None = None,
    ) -> T:
        """What `check` makes of the answer.

        Parameters
        ----------
        question
            What is asked, as a phrase.
        given
            What the flag says; then nothing is asked.
        check
            Reads an answer, and raises a `CandlingError` where it cannot be used: of a flag that ends the
            command, and at the terminal the question is asked again.
        flag
            The flag that answers it.
        default
            The answer where there is none; None if there has to be one.

        Raises
        ------
        ParamsError
            If there is no answer, no default and nobody to ask.
        """
        if given is not None:
            return check(given)
        if not self.asks:
            if default is None:
                raise ParamsError(f"{flag} is not said and nobody can be asked; say it")
            return check(default)
        while True:
            answer = self._answer(question, default)
            try:
                return check(answer)
            except CandlingError as error:
                # The person answers a question, and said no flag.
                self.say(f"  {str(error).removeprefix(flag).removeprefix(':').lstrip()}")

    def _answer(self, question: str, default: str | None) -> str:
        # `input` writes a part of its question to stdout; into a file that would be a part of the result.
        aside = contextlib.nullcontext() if sys.stdout.isatty() else contextlib.redirect_stdout(sys.stderr)
        with aside:
            answer: str = typer.prompt(
                shown(question), default=default, show_default=bool(default), err=True, type=str
            )
        return answer

    def say(self, text: str) -> None:
        """Tell a person something on the way."""
        typer.echo(shown(text), err=True)


def _complete_paths() -> None:
    """Let the tab key complete paths in answers, where the terminal's library can."""
    try:
        import readline
    except ModuleNotFoundError:
        return  # Python can be built without it; then a tab is a tab
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
