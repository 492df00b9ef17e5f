"""Units: the parts of a prompt that are left out one at a time, tokens, words or sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from candling.errors import ParamsError
from candling.language.loading import LanguageModel

__all__ = ["UNITS", "Unit", "UnitKind", "units_of"]

UnitKind = Literal["token", "word", "sentence"]
UNITS: tuple[UnitKind, ...] = get_args(UnitKind)

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*[\"'”’)]*\s*|[.!?。！？\n]+\s*")


@dataclass(frozen=True)
class Unit:
    """Some tokens in a row. text: what they read as. first, last: places of the first and after the last."""

    text: str
    first: int
    last: int


def units_of(model: LanguageModel, tokens: list[int], kind: UnitKind) -> list[Unit]:
    """The units of a prompt, which hold all of its tokens, in order.

    A token that lies in two words, as some of a tokenizer do, belongs to the one that it ends in.

    Raises
    ------
    ParamsError
        If there is no such kind.
    """
    if kind not in UNITS:
        raise ParamsError(f"unit {kind!r} is not known; there are {', '.join(UNITS)}")
    if kind == "token":
        names = model.pieces(tokens)
        return [Unit(name, place, place + 1) for place, name in enumerate(names)]
    ends = _ends(model, tokens)
    whole = model.decode(tokens)
    pattern = _WORD if kind == "word" else _SENTENCE
    edges = [match.end() for match in pattern.finditer(whole)] or [len(whole)]
    edges[-1] = max(len(whole), ends[-1])
    units, first = [], 0
    for edge in edges:
        last = first
        while last < len(tokens) and ends[last] <= edge:
            last += 1
        if last > first:
            units.append(Unit(model.decode(tokens[first:last]).strip(), first, last))
            first = last
    return units


def _ends(model: LanguageModel, tokens: list[int]) -> list[int]:
    """How many characters of the text each token ends after.

    Of a character of several tokens, all end where it does, so that none is taken apart.
    """
    whole, found = model.decode(tokens), [0] * len(tokens)
    end = len(whole)
    for place in range(len(tokens), 0, -1):
        text = model.decode(tokens[:place])
        if whole.startswith(text):
            end = min(end, len(text))
        found[place - 1] = end
    return found
