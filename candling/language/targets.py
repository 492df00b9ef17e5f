"""Targets: what a model may be made to say, as text and as the tokens that it is made of.

A tokenizer decides what a leading space does: GPT-2 makes other tokens of ``" girl"`` than of ``"girl"``,
and one of SentencePiece puts a space before every text, so that ``" girl"`` has one too many. A target is
taken as it is written, and says what became of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from candling.errors import DataError, ParamsError
from candling.language.loading import LanguageModel

__all__ = ["Target", "read_lexicon", "spelled", "target_of"]

_QUOTED = re.compile(r'\s*"([^"]*)"\s*(?:#.*)?$')


@dataclass(frozen=True)
class Target:
    """A continuation.

    text: as it was written. tokens: what the model is to say, one after another. pieces: their names.
    """

    text: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.text!r} is {' · '.join(self.pieces)}"


def target_of(model: LanguageModel, what: str | Sequence[int]) -> Target:
    """A text as a target, or tokens as they are, such as a model said them.

    Raises
    ------
    ParamsError
        If no token is left of it, or it does not fit into the model's context.
    """
    text = what if isinstance(what, str) else model.decode(what)
    tokens = model.encode(what) if isinstance(what, str) else list(what)
    if not tokens:
        raise ParamsError(f"target {text!r} tokenizes to nothing; name some text")
    room = model.longest
    if room is not None and len(tokens) + len(model.begin) > room:
        raise ParamsError(f"target of {len(tokens)} tokens is longer than the model's context of {room}")
    return Target(text, tuple(tokens), tuple(model.pieces(tokens)))


def spelled(model: LanguageModel, text: str) -> list[Target]:
    """A target with and without a space before it, where that makes other tokens."""
    bare = text.removeprefix(" ")
    found = [target_of(model, bare), target_of(model, f" {bare}")]
    return found[:1] if found[0].tokens == found[1].tokens else found


def read_lexicon(file: str | Path) -> list[str]:
    """The texts of a file, one a line; what follows ``#`` is a comment, a text in quotes keeps its spaces.

    Raises
    ------
    DataError
        If it is not there, no UTF-8, or names nothing.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such lexicon") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: not a lexicon of UTF-8 text, one entry a line") from error
    found: dict[str, None] = {}
    for line in lines:
        quoted = _QUOTED.match(line)
        text = quoted[1] if quoted else line.partition("#")[0].strip()
        if text:
            found[text] = None
    if not found:
        raise DataError(f"{path}: names nothing; write one entry a line")
    return list(found)
