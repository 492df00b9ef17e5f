"""Association maps: what prompts that make a model say one thing share, beyond those for other things.

The unit is the restart. A piece, or a word that is put together from pieces, counts once for each restart
whose prompt holds it, so that a restart that says it five times is still one. Counts are held against those
of controls by log-odds with an informative prior (Monroe, Colaresi and Quinn, "Fightin' Words", Political
Analysis 2008, section 3.3), here of shares of restarts: the prior is what all prompts together hold. p-values
are those of permuted labels, false discoveries are controlled (Benjamini and Hochberg 1995), intervals are a
bootstrap over restarts, and what is flagged must be found again in a second block of restarts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from candling.errors import ParamsError

__all__ = [
    "LEXICON",
    "PIECE",
    "MapSettings",
    "association_table",
    "forms_in",
    "holds",
    "items_of",
    "words_of",
]

PIECE = "piece:"  # before an item that is no whole word
LEXICON = "lexicon:"  # before one that stands for any word of a list

Array = NDArray[np.float64]

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True, kw_only=True)
class MapSettings:
    """How shares of restarts are compared.

    prior: restarts that the prior is worth. least: restarts, of the concept and of controls together, that
    must hold an item for it to be tested. discoveries: share of the flagged that may be false. permutations,
    resamples: of labels and of restarts, drawn by seed. confidence: of intervals.
    matters: the least effect in templates that confirms an item, in nats; 0.5 is a factor of 1.6.
    """

    prior: float = 2.0
    least: int = 3
    discoveries: float = 0.05
    permutations: int = 5000
    resamples: int = 2000
    confidence: float = 0.95
    matters: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("least", "permutations", "resamples"):
            if getattr(self, name) < 1:
                raise ParamsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.prior <= 0:
            raise ParamsError(f"prior must lie above 0, not {self.prior}")
        if self.matters < 0:
            raise ParamsError(f"matters must not be below 0, it is {self.matters}")
        for name in ("discoveries", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise ParamsError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")


def words_of(text: str) -> list[str]:
    """The words of a text, one after another, in small letters."""
    return [word.casefold() for word in _WORD.findall(text)]


def holds(text: str, entry: str) -> bool:
    """Whether a text says an entry of a lexicon, its words one after another."""
    words, wanted = words_of(text), words_of(entry)
    last = len(words) - len(wanted)
    return bool(wanted) and any(words[i : i + len(wanted)] == wanted for i in range(last + 1))


def forms_in(texts: Iterable[str]) -> dict[str, str]:
    """How each word, in small letters, is most often written in texts."""
    counts: dict[str, Counter[str]] = {}
    for text in texts:
        for word in _WORD.findall(text):
            counts.setdefault(word.casefold(), Counter())[word] += 1
    return {word: forms.most_common(1)[0][0] for word, forms in counts.items()}


def items_of(
    text: str, pieces: Iterable[str], lexicons: Mapping[str, Iterable[str]] | None = None
) -> set[str]:
    """What a prompt holds: words, lexicons of which it holds a word, and pieces that are no words.

    They are called ``little``, ``lexicon:names`` and ``piece:▁lit``.
    """
    words = set(words_of(text))
    parts = {PIECE + piece for piece in pieces if piece.strip("▁").casefold() not in words}
    held = {
        LEXICON + name for name, listed in (lexicons or {}).items() if any(holds(text, one) for one in listed)
    }
    return words | held | {part for part in parts if part.strip("▁") != PIECE}


def association_table(
    concept: Sequence[set[str]],
    controls: Sequence[set[str]],
    *,
    second: tuple[Sequence[set[str]], Sequence[set[str]]] | None = None,
    always: Iterable[str] = (),
    settings: MapSettings | None = None,
) -> pd.DataFrame:
    """What restarts of a concept hold more often than those of controls.

    Parameters
    ----------
    concept, controls
        For each restart that succeeded, the items of its prompt.
    second
        The same of a second block of restarts, in which what is flagged must be found again.
    always
        Items that get a row however few restarts hold them.

    Returns
    -------
    DataFrame
        A row for each item that enough restarts of either hold, the strongest first: item; count and share
        of the concept's restarts, share_controls; lift, the ratio of the shares, smoothed by the prior, with
        low and high; log_odds and z, above 0 for what the concept holds more often; p of permuted labels,
        one-sided, and q, its false-discovery rate; replicated (whether log-odds lie above 0 with p below
        0.05 in the second block; None without one); flagged.

    Raises
    ------
    ParamsError
        If either has no restart.
    """
    settings = settings or MapSettings()
    if not concept or not controls:
        raise ParamsError("no restart succeeded for the concept or for its controls; there is nothing to map")
    # Of both sides together: chosen by the concept's own count, p-values would be too small.
    held = pd.Series([item for one in (*concept, *controls) for item in sorted(one)]).value_counts()
    enough = {str(item) for item, count in held.items() if count >= settings.least}
    items = sorted(enough | set(always))
    generator = np.random.default_rng(settings.seed)
    mine, theirs = _presence(concept, items), _presence(controls, items)
    figures = _figures(mine, theirs, settings)
    table = pd.DataFrame(
        {
            "item": items,
            "count": mine.sum(0).astype(int),
            "share": mine.mean(0),
            "share_controls": theirs.mean(0),
            **figures,
        }
    )
    table["low"], table["high"] = _bootstrapped(mine, theirs, settings, generator)
    table["p"] = _permuted(mine, theirs, settings, generator)
    table["q"] = false_discovery_control(table.p) if len(table) else []
    table["replicated"] = None
    if second is not None:
        table["replicated"] = _again(items, second, settings, generator)
    again = True if second is None else table.replicated.astype(bool)
    table["flagged"] = (table.q <= settings.discoveries) & (table.low > 1) & again
    order = ["item", "count", "share", "share_controls", "lift", "low", "high", "log_odds", "z", "p", "q"]
    return (
        table[[*order, "replicated", "flagged"]]
        .sort_values(["flagged", "z"], ascending=False, kind="stable")
        .reset_index(drop=True)
    )


def _presence(restarts: Sequence[set[str]], items: Sequence[str]) -> NDArray[np.bool_]:
    """Which restart holds which item, bool (R, I)."""
    return np.array([[item in one for item in items] for one in restarts], dtype=bool).reshape(
        len(restarts), len(items)
    )


def _prior(mine: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Array:
    """The share of all restarts that hold each item, never 0 or 1."""
    pooled = np.concatenate([mine, theirs])
    return np.asarray((pooled.sum(0) + 0.5) / (len(pooled) + 1))


def _figures(mine: NDArray[np.bool_], theirs: NDArray[np.bool_], settings: MapSettings) -> dict[str, Array]:
    """Lift, log-odds and z of each item, smoothed by what all restarts hold."""
    counts = (mine.sum(0).astype(float), theirs.sum(0).astype(float))
    prior = settings.prior * _prior(mine, theirs)
    lift, odds, spread = _smoothed(*counts, len(mine), len(theirs), prior, settings.prior)
    return {"lift": lift, "log_odds": odds, "z": odds / spread}


def _smoothed(
    mine: Array, theirs: Array, own: int, others: int, prior: Array, weight: float
) -> tuple[Array, Array, Array]:
    """Lift, log-odds ratio and its standard deviation, of counts (..., I) among so many restarts.

    `prior` (I,) is how many of the `weight` restarts that it is worth hold each item.
    """
    first, second = mine + prior, theirs + prior
    rest_first, rest_second = own + weight - first, others + weight - second
    odds = np.log(first / rest_first) - np.log(second / rest_second)
    spread = np.sqrt(1 / first + 1 / rest_first + 1 / second + 1 / rest_second)
    return (first / (own + weight)) / (second / (others + weight)), odds, spread


def _bootstrapped(
    mine: NDArray[np.bool_], theirs: NDArray[np.bool_], settings: MapSettings, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Interval of the lift, over restarts of either side; the prior stays as it is."""
    draws = [
        generator.multinomial(len(side), np.full(len(side), 1 / len(side)), settings.resamples)
        @ side.astype(float)
        for side in (mine, theirs)
    ]
    prior = settings.prior * _prior(mine, theirs)
    lift, _, _ = _smoothed(draws[0], draws[1], len(mine), len(theirs), prior, settings.prior)
    tail = 100 * (1 - settings.confidence) / 2
    low, high = np.percentile(lift, [tail, 100 - tail], axis=0)
    return low, high


def _permuted(
    mine: NDArray[np.bool_], theirs: NDArray[np.bool_], settings: MapSettings, generator: np.random.Generator
) -> Array:
    """One-sided p-values of the log-odds under permuted labels, never 0."""
    pooled = np.concatenate([mine, theirs]).astype(float)
    total, prior = pooled.sum(0), settings.prior * _prior(mine, theirs)

    def odds(counts: Array) -> Array:
        return _smoothed(counts, total - counts, len(mine), len(theirs), prior, settings.prior)[1]

    labels = np.zeros((settings.permutations, len(pooled)))
    labels[:, : len(mine)] = 1
    drawn = generator.permuted(labels, axis=1) @ pooled
    as_much = (odds(drawn) >= odds(mine.sum(0).astype(float)) - 1e-12).sum(0)
    return np.asarray((as_much + 1) / (settings.permutations + 1))


def _again(
    items: Sequence[str],
    second: tuple[Sequence[set[str]], Sequence[set[str]]],
    settings: MapSettings,
    generator: np.random.Generator,
) -> list[bool]:
    """Whether each item is held more often in a second block too."""
    concept, controls = second
    if not concept or not controls:
        return [False] * len(items)
    mine, theirs = _presence(concept, items), _presence(controls, items)
    odds = _figures(mine, theirs, settings)["log_odds"]
    p = _permuted(mine, theirs, settings, generator)
    return [bool(one > 0 and chance < 0.05) for one, chance in zip(odds, p, strict=True)]
