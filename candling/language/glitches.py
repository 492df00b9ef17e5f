"""Glitch tokens: tokens after which a model says the same thing, wherever they stand.

Tokens that training hardly ever saw, or saw in broken texts only, derail a model (Land and Bartolo, "Fishing
for Magikarp", arXiv 2405.05417). Here each is put into texts that have nothing to do with it, and what the
model expects some words later is held against what it expects without it. A word of the language changes that
in a way that depends on the text; a glitch changes it everywhere in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.loading import LanguageModel, open_language_model
from candling.language.prompts import allowed_tokens
from candling.language.scoring import batches_of, finite, following
from candling.statistics import bootstrap, proportion

__all__ = ["GlitchSettings", "glitch_tokens", "suspects"]

_FEWEST = 20  # texts
_MOST = 0.5  # of texts


@dataclass(frozen=True, kw_only=True)
class GlitchSettings:
    """How glitch tokens are looked for.

    most: tokens that are tried; of a larger vocabulary those whose embeddings are the oddest. apart: tokens
    between one that is put in and the place that is read. takes: least rise of one and the same word's
    probability, in most texts, of a glitch.
    """

    most: int = 1024
    apart: int = 2
    takes: float = 0.2

    def __post_init__(self) -> None:
        for name in ("most", "apart"):
            if getattr(self, name) < 1:
                raise ParamsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.takes < 1:
            raise ParamsError(f"takes must lie between 0 and 1, not {self.takes}")


def suspects(model: LanguageModel, most: int) -> list[int]:
    """Tokens that are tried: all that are text, or those whose embeddings stand out most.

    Embeddings that training never moved keep their first norm and direction, far from those of others: of
    norms, and of cosines with the mean embedding, those furthest from the median are taken by turns.
    """
    tokens = allowed_tokens(model).nonzero()[:, 0]
    if len(tokens) > most:
        weights = model.network.get_input_embeddings().weight.detach().float()[tokens]
        mean = weights.mean(0, keepdim=True)
        kinds = (weights.norm(dim=1), torch.nn.functional.cosine_similarity(weights, mean, dim=1))
        rank = torch.stack([_oddest_first(values) for values in kinds]).amin(0)
        tokens = tokens[rank.argsort(stable=True)[:most]].sort().values
    return [int(one) for one in tokens.tolist()]


def _oddest_first(values: Tensor) -> Tensor:
    """The rank of each value, 0 for the one furthest from the median."""
    return (-(values - values.median()).abs()).argsort(stable=True).argsort(stable=True)


def glitch_tokens(
    model: LanguageModel | str,
    texts: Sequence[str],
    *,
    settings: GlitchSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """What each token makes a model say some words later, wherever it is put.

    Half of the texts name, for each token, the word whose probability it raises most; the other half measures
    by how much, so that nothing is won by the choice.

    Parameters
    ----------
    texts
        Ordinary texts; every token is put into each, at a place that the text has for all.

    Returns
    -------
    DataFrame
        A row for each token that was tried, the strongest first: token, piece, text, says (the word), rise
        with low and high (of its probability, in [-1, 1], the mean over texts and its bootstrap), share (of
        texts in which it rises by what a glitch takes), n texts, glitch (whether the interval of the share
        lies above a half).

    Raises
    ------
    ParamsError
        If fewer than twenty texts are long enough.
    ModelError
        If the model cannot be read or returns NaN.
    """
    settings = settings or GlitchSettings()
    opened = open_language_model(model)
    room = (opened.longest or 2**20) - len(opened.begin) - 1
    rows = [row[:room] for row in map(opened.encode, texts)]
    rows = [row for row in rows if len(row) >= settings.apart + 2]
    if len(rows) < _FEWEST:
        raise ParamsError(
            f"{len(rows)} of {len(texts)} texts are long enough to put a token into; "
            f"give {_FEWEST} of at least {settings.apart + 2} tokens"
        )
    tried = torch.tensor(suspects(opened, settings.most), device=opened.device)
    generator = np.random.default_rng(0)
    half = len(rows) // 2
    raised = torch.zeros(len(tried), opened.vocabulary)
    says = torch.zeros(len(tried), dtype=torch.long)
    measured: list[Tensor] = []
    for number, row in enumerate(rows):
        place = int(generator.integers(1, len(row) - settings.apart))
        change = _change(opened, row, place, tried, settings.apart)
        if number < half:
            raised += change
            says = raised.argmax(1)
        else:
            measured.append(change.gather(1, says[:, None])[:, 0])
        if progress is not None:
            progress(number + 1, len(rows))
    rises = torch.stack(measured, 1).double().numpy()
    found = [bootstrap(lambda sample: sample.mean(1), values) for values in rises]
    taken = [proportion(int(count), len(measured)) for count in (rises >= settings.takes).sum(1)]
    table = pd.DataFrame(
        {
            "token": tried.tolist(),
            "piece": opened.pieces(tried.tolist()),
            "text": [opened.decode([token]) for token in tried.tolist()],
            "says": opened.pieces(says.tolist()),
            "rise": [one.value for one in found],
            "low": [one.low for one in found],
            "high": [one.high for one in found],
            "share": [one.value for one in taken],
            "n": len(measured),
            "glitch": [one.low > _MOST for one in taken],
        }
    )
    return table.sort_values("rise", ascending=False, kind="stable").reset_index(drop=True)


def _change(model: LanguageModel, row: list[int], place: int, tokens: Tensor, apart: int) -> Tensor:
    """What each token (T,), put before a place of a text, does to probabilities (T, V) `apart` tokens on."""
    head = torch.tensor([*model.begin, *row[:place]], device=model.device)
    tail = torch.tensor(row[place : place + apart], device=model.device)
    parts = []
    with torch.inference_mode():
        plain = _probabilities(model, torch.cat([head, tail])[None])
        for some in tokens.split(batches_of(model, len(head) + 1 + apart).size):
            rows = torch.cat([head.expand(len(some), -1), some[:, None], tail.expand(len(some), -1)], 1)
            parts.append(_probabilities(model, rows) - plain)
    return torch.cat(parts)


def _probabilities(model: LanguageModel, rows: Tensor) -> Tensor:
    """Probabilities (N, V) of what follows rows (N, L)."""
    logits = finite(following(model, rows, 1)[:, 0])
    return logits.softmax(-1).cpu()
