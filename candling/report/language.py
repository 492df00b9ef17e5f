"""What the report shows of a language model: what prompts share, and texts coloured by what words did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from candling.audit.record import AuditRecord
from candling.report.artifacts import NotThere, read_rows
from candling.report.bars import Axis, Bar, bar_of
from candling.report.text import clean

__all__ = ["Comparison", "attributed_prompts", "attribution_problems", "comparisons"]

Audited = tuple[AuditRecord, Path]

# As `candling.language.associations` marks items; the engine is not imported here.
_PIECE, _LEXICON = "piece:", "lexicon:"
_ITEM = (
    "item", "count", "lift", "low", "high", "log_odds", "q", "flagged", "effect", "effect_low", "effect_high",
    "confirmed",
)  # fmt: skip
_WORD = ("text", "score", "prompt", "said", "lexicon", "log_probability")
_OPEN, _MOST = 6, 24  # items of a chart in view, and with those folded away
_CLOUD = 30  # words of a cloud
_SMALL, _LARGE = 0.85, 2.2  # rem
_PROMPTS_OPEN, _PROMPTS = 6, 40


@dataclass(frozen=True)
class Item:
    """What prompts share. kind: word, piece or lexicon. size: of its word in the cloud, in rem."""

    name: str
    kind: str
    count: int
    lift: float
    low: float
    high: float
    q: float
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    flagged: bool
    confirmed: bool
    bar: Bar | None
    size: float


@dataclass(frozen=True)
class Chart:
    """One subject: items in view, items folded away, and the cloud; or why there are none."""

    shown: tuple[Item, ...]
    folded: tuple[Item, ...]
    cloud: tuple[Item, ...]
    told: str
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """A concept beside controls, or beside another concept; a chart for each subject, None where none is."""

    concept: str
    against: str
    charts: tuple[Chart | None, ...]


@dataclass(frozen=True)
class Word:
    """A part of a prompt and what it did; strength in percent of the strongest of its prompt."""

    text: str
    score: float
    strength: int


@dataclass(frozen=True)
class Line:
    """A prompt as one subject read it, and what it said."""

    words: tuple[Word, ...]
    said: str
    log_probability: float
    lexicon: str


@dataclass(frozen=True)
class Prompt:
    """One prompt, for each subject its line. more: prompts that are not shown at all."""

    number: int
    lexicon: str
    lines: tuple[Line | None, ...]
    folded: bool
    more: int


def comparisons(subjects: Sequence[Audited]) -> list[Comparison]:
    """Every concept with what prompts share, subjects side by side on one axis."""
    found: dict[tuple[str, str], dict[int, tuple[pd.DataFrame, str, str]]] = {}
    for index, (record, folder) in enumerate(subjects):
        for artifact in record.artifacts:
            if artifact.section != "associations":
                continue
            key = (artifact.scope.get("concept", ""), artifact.scope.get("against", ""))
            try:
                rows, problem = read_rows(artifact, folder, _ITEM), ""
            except NotThere as error:
                rows, problem = pd.DataFrame(), str(error)
            found.setdefault(key, {})[index] = (rows, artifact.caption, problem)
    out = []
    for (concept, against), by in found.items():
        lifts = [value for rows, _, _ in by.values() if len(rows) for value in _ranked(rows).high.head(_MOST)]
        axis = Axis(-1.0, max([1.0, *(math.log2(max(value, 1.0)) for value in lifts)]))
        charts = tuple(_chart(*by[index], axis) if index in by else None for index in range(len(subjects)))
        out.append(Comparison(concept, against, charts))
    return out


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """What the concept's prompts hold more often, the surest first: confirmed, flagged, then by lift."""
    more = rows[(rows.log_odds > 0) & (rows["count"] > 0) | rows.confirmed]
    return more.sort_values(["confirmed", "flagged", "low"], ascending=False, kind="stable")


def _chart(rows: pd.DataFrame, told: str, problem: str, axis: Axis) -> Chart:
    if problem or not len(rows):
        return Chart((), (), (), told, problem or "nothing was shared often enough to be counted")
    most = max(1e-9, float(rows.lift.map(lambda lift: math.log(max(lift, 1.0))).max()))
    ranked = _ranked(rows)
    items = [_item(row, axis, most) for row in ranked.head(max(_MOST, _CLOUD)).to_dict("records")]
    if len(ranked) > _MOST:
        told = f"{told}; the first {_MOST} of {len(ranked)} items are listed"
    cloud = sorted((one for one in items if one.kind != "lexicon"), key=lambda one: -one.lift)[:_CLOUD]
    return Chart(tuple(items[:_OPEN]), tuple(items[_OPEN:_MOST]), tuple(cloud), told)


def _item(row: Any, axis: Axis, most: float) -> Item:
    name = str(row["item"])
    kind = "piece" if name.startswith(_PIECE) else "lexicon" if name.startswith(_LEXICON) else "word"
    lift, low, high = (float(row[key]) for key in ("lift", "low", "high"))
    at, first, last = (math.log2(max(value, 2**axis.low)) for value in (lift, low, high))
    effect, effect_low, effect_high = (_number(row[key]) for key in ("effect", "effect_low", "effect_high"))
    return Item(
        name=name.removeprefix(_PIECE).removeprefix(_LEXICON), kind=kind, count=int(row["count"]),
        lift=lift, low=low, high=high, q=float(row["q"]),
        effect=effect, effect_low=effect_low, effect_high=effect_high,
        flagged=bool(row["flagged"]), confirmed=bool(row["confirmed"]), bar=bar_of(axis, at, first, last),
        size=round(_SMALL + (_LARGE - _SMALL) * min(1.0, math.log(max(lift, 1.0)) / most), 2),
    )  # fmt: skip


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def attributed_prompts(subjects: Sequence[Audited]) -> list[Prompt]:
    """Prompts that made a subject say a word of a lexicon, then others, with what their words did."""
    found: dict[tuple[str, int], dict[int, Line]] = {}
    for index, (record, folder) in enumerate(subjects):
        for artifact in record.artifacts:
            if artifact.section != "attribution":
                continue
            try:
                rows = read_rows(artifact, folder, _WORD)
            except NotThere:
                continue  # `attribution_problems` says so
            for (lexicon, number), part in rows.groupby(["lexicon", "prompt"], sort=False):
                key = (str(lexicon), int(str(number)))
                found.setdefault(key, {})[index] = _line(part, key[0])
    keys = sorted(found, key=lambda key: (key[0] == "", key))
    more = len(keys) - _PROMPTS
    # Of those without a hit some are enough to be read; hits are what is looked for.
    return [
        Prompt(
            number, lexicon, tuple(found[lexicon, number].get(i) for i in range(len(subjects))),
            folded=place >= _PROMPTS_OPEN, more=max(0, more),
        )
        for place, (lexicon, number) in enumerate(keys[:_PROMPTS])
    ]  # fmt: skip


def attribution_problems(subjects: Sequence[Audited]) -> dict[int, str]:
    """Why the prompts of a subject cannot be shown, by its place."""
    found = {}
    for index, (record, folder) in enumerate(subjects):
        for artifact in record.artifacts:
            if artifact.section == "attribution":
                try:
                    read_rows(artifact, folder, _WORD)
                except NotThere as error:
                    found[index] = str(error)
    return found


def _line(rows: pd.DataFrame, lexicon: str) -> Line:
    most = float(rows.score.abs().max()) or 1.0
    words = tuple(
        Word(clean(str(text)), float(score), round(100 * abs(float(score)) / most))
        for text, score in zip(rows.text, rows.score, strict=True)
    )
    first = rows.iloc[0]
    return Line(words, clean(str(first.said)), float(first.log_probability), lexicon)
