"""Attribution: which parts of a prompt made a model say what it said.

*Leave one out*: each unit is taken away, or replaced by a token, and the score of the output is taken again.
Rows share all tokens before the first that changes, whose keys and values are computed once. *Marginal*: each
token gives way to those that the model itself expects in its place, as likely as it expects them (input
marginalization, Kim et al., arXiv 2010.13984, section 3), so that what remains is a text, and a word that
grammar alone asks for counts for nothing. *Integrated
gradients* (Sundararajan, Taly and Yan, arXiv 1703.01365) go from a baseline's embeddings to the prompt's.
A *sparse surrogate* is a lasso over random ablations (as ContextCite has it, Cohen-Wang et al., arXiv
2409.00729, section 4), for prompts of so many units that leaving out each costs too much, or that hold the
same thing twice, so that leaving out one changes nothing.

The score is the log-probability of the output, or its difference to that of a foil: why this, rather than
that (Yin and Neubig, "Interpreting Language Models with Contrastive Explanations", arXiv 2202.10419).
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from candling.errors import ParamsError
from candling.language.loading import LanguageModel, open_language_model
from candling.language.scoring import Prefix, batches_of, following, picked
from candling.language.targets import Target, target_of
from candling.language.turns import turn_of
from candling.language.units import Unit, UnitKind, units_of

__all__ = ["METHODS", "Attribution", "AttributionMethod", "attribute"]

AttributionMethod = Literal["leave-one-out", "marginal", "integrated-gradients", "surrogate"]
METHODS: tuple[AttributionMethod, ...] = get_args(AttributionMethod)

_SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)  # of units, by which faithfulness is told (DeYoung et al. 2020)
_GROUP = 16  # rows that begin at the same token
_COMPLETE = 0.01  # of the score that integrated gradients must add up to
_MOST_STEPS = 512
_ABLATIONS = 4  # of the surrogate, for each unit
_FEWEST_ABLATIONS = 64
_EXPECTED = 16  # tokens that stand for one, those that the model expects most


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each unit of a prompt does for an output.

    units: of the prompt. scores: float64 (n,), what the score loses without each unit, in nats; below 0 where
    it speaks against the output. score: of the whole prompt, the log-probability of the target, less that of
    the foil where there is one. comprehensiveness: what is lost, on average, without the strongest units (1%,
    5%, 10%, 20% and 50% of them); sufficiency: what is lost where these alone are left; each beside that of
    units in random order, the mean over draws. evaluations: rows that went through the model, gradients
    counted twice. notes: sentences on what was done.
    """

    prompt: str
    units: tuple[Unit, ...]
    scores: NDArray[np.float64]
    target: Target
    foil: Target | None
    method: AttributionMethod
    score: float
    comprehensiveness: float = math.nan
    comprehensiveness_random: float = math.nan
    sufficiency: float = math.nan
    sufficiency_random: float = math.nan
    evaluations: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def table(self) -> pd.DataFrame:
        """A row for each unit: place, text, score and rank, 1 for the one that speaks most for the output."""
        order = (-self.scores).argsort(kind="stable").argsort(kind="stable") + 1
        return pd.DataFrame(
            {
                "place": range(len(self.units)),
                "text": [unit.text for unit in self.units],
                "score": self.scores,
                "rank": order,
            }
        )

    def __repr__(self) -> str:
        what = f"{self.target.text!r}"
        if self.foil is not None:
            what += f" rather than {self.foil.text!r}"
        best = self.table.sort_values("rank").head(8)
        lines = [f"{row.score:+8.3f}  {row.text!r}" for row in best.itertuples()]
        return "\n".join([f"why {what}: score {self.score:.3f} nats, {self.method}", *lines, *self.notes])

    def _repr_html_(self) -> str:
        most = float(np.abs(self.scores).max(initial=0.0)) or 1.0
        parts = []
        for unit, score in zip(self.units, self.scores.tolist(), strict=True):
            colour = "214, 96, 20" if score > 0 else "33, 102, 172"
            text = html.escape(_shown(unit.text))
            parts.append(
                f'<span title="{score:+.3f} nats" style="background:rgba({colour},{abs(score) / most:.2f});'
                f'padding:1px 2px;border-radius:3px;unicode-bidi:isolate">{text}</span>'
            )
        said = html.escape(_shown(self.target.text))
        return (
            f'<p style="line-height:1.9">{" ".join(parts)} → <b style="unicode-bidi:isolate">{said}</b></p>'
        )


def _shown(text: str) -> str:
    """A text without characters that control where or how it is shown."""
    return "".join(c if c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in text)


@dataclass
class _Prompt:
    """A prompt that is scored with some of its units left out, and how many rows that took."""

    model: LanguageModel
    before: tuple[int, ...]
    after: tuple[int, ...]
    tokens: list[int]
    units: list[Unit]
    outputs: list[tuple[float, tuple[int, ...]]]  # sign and tokens
    replacement: int | None
    evaluations: int = 0

    def __post_init__(self) -> None:
        self.prefix = Prefix(self.model, (*self.before, *self.tokens, *self.after))

    def row(self, kept: NDArray[np.bool_]) -> list[int]:
        """Tokens with the units that are not kept taken away or replaced."""
        found = list(self.before)
        for unit, stays in zip(self.units, kept.tolist(), strict=True):
            own = self.tokens[unit.first : unit.last]
            if stays:
                found += own
            elif self.replacement is not None:
                found += [self.replacement] * len(own)
        return [*found, *self.after]

    def scores(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The score (N,) with the units kept that are True in each row (N, n)."""
        found = self.of_rows([self.row(one) for one in kept])
        signs = np.array([sign for sign, _ in self.outputs])
        return np.asarray(signs @ found)

    def of_rows(self, rows: Sequence[list[int]]) -> NDArray[np.float64]:
        """Log-probability (O, N) of each output after each row."""
        rows = [row or list(self.model.begin) for row in rows]
        out = np.zeros((len(self.outputs), len(rows)))
        whole = list(self.prefix.tokens)
        shared = [_shared(row, whole) for row in rows]
        # Neighbours begin at about the same token; rows of one length need no padding.
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), shared[i]))
        for number, (_, output) in enumerate(self.outputs):
            place = 0
            while place < len(order):
                length = len(rows[order[place]])
                most = min(batches_of(self.model, length + len(output)).size, _GROUP)
                group = [i for i in order[place : place + most] if len(rows[i]) == length]
                place += len(group)
                # The last token before the output is seen anew, because its logits are wanted.
                first = min(min(shared[i] for i in group), length - 1) if self.prefix.kept else 0
                ids = torch.tensor([[*rows[i], *output] for i in group], device=self.model.device)
                with torch.inference_mode():
                    found = following(
                        self.model, ids[:, first:-1], len(output), prefix=self.prefix, length=first
                    )
                    value = picked(found, ids[:, -len(output) :]).sum(1)
                out[number, group] = value.double().cpu().numpy()
                self.evaluations += len(group)
        return out


def _shared(row: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens at the beginning are the same."""
    for place, (one, other) in enumerate(zip(row, whole, strict=False)):
        if one != other:
            return place
    return min(len(row), len(whole))


def attribute(
    model: LanguageModel | str,
    prompt: str | Sequence[int],
    *,
    target: str | Sequence[int],
    foil: str | Sequence[int] | None = None,
    frame: str | Sequence[int] = "",
    chat: bool = False,
    unit: UnitKind = "word",
    method: AttributionMethod = "leave-one-out",
    replacement: int | None = None,
    faithfulness: bool = True,
    draws: int = 10,
    seed: int = 0,
) -> Attribution:
    """Which units of a prompt made the model say the target, each with what the score loses without it.

    Parameters
    ----------
    model
        A model, a folder in the format of transformers, or a repository of the hub.
    prompt, target, foil
        Texts, or tokens as they are: what a model said, read again from its text, may be other tokens. The
        target follows the prompt as it is written, so that a space between them is to be written. Before the
        prompt stands what the tokenizer puts there, such as BOS.
    frame
        What stands between prompt and target, is given, and has nothing attributed to it.
    chat
        Whether the prompt is what a user says in the model's chat template, and the target begins the
        answer.
    unit
        token, word or sentence.
    method
        leave-one-out, marginal, integrated-gradients or surrogate.
    replacement
        A token that stands for what is left out; None: it is taken away.
    faithfulness
        Whether comprehensiveness and sufficiency are measured, beside those of a random order.
    draws, seed
        Random orders, and what they and the surrogate's ablations are drawn by.

    Raises
    ------
    ParamsError
        If the prompt or a target tokenizes to nothing, both do not fit into the context, a name is not known,
        or there is no chat template.
    ModelError
        If the model cannot be read or returns NaN.
    """
    if method not in METHODS:
        raise ParamsError(f"method {method!r} is not known; there are {', '.join(METHODS)}")
    opened = open_language_model(model)
    wanted = target_of(opened, target)
    other = None if foil is None else target_of(opened, foil)
    turn = turn_of(opened, chat=chat)
    if isinstance(prompt, str):
        before, tokens, after = turn.placed(prompt)
    else:
        before, tokens, after = turn.before, list(prompt), turn.after
        prompt = opened.decode(tokens)
    if not tokens:
        raise ParamsError(f"prompt {prompt!r} tokenizes to nothing; there is nothing to attribute to")
    if other is not None and other.tokens == wanted.tokens:
        raise ParamsError(f"target and foil are the same, {wanted.text!r}")
    after = (*after, *(opened.encode(frame) if isinstance(frame, str) else frame))
    longest = len(before) + len(tokens) + len(after)
    longest += max(len(one.tokens) for one in (wanted, other) if one)
    if opened.longest is not None and longest > opened.longest:
        raise ParamsError(
            f"prompt and target are {longest} tokens, more than the model's context of {opened.longest}"
        )
    if replacement is not None and not 0 <= replacement < opened.vocabulary:
        raise ParamsError(f"there is no token {replacement}; the model has {opened.vocabulary}")
    units = units_of(opened, tokens, unit)
    outputs = [(1.0, wanted.tokens)] + ([] if other is None else [(-1.0, other.tokens)])
    asked = _Prompt(opened, before, after, tokens, units, outputs, replacement)
    count = len(units)
    score = float(asked.scores(np.ones((1, count), dtype=bool))[0])
    notes: tuple[str, ...] = (str(wanted),) + (() if other is None else (str(other),))
    if method == "leave-one-out":
        scores = score - asked.scores(~np.eye(count, dtype=bool))
    elif method == "marginal":
        scores, told = _marginal(asked, score)
        notes += (told,)
    elif method == "surrogate":
        scores, told = _surrogate(asked, score, seed)
        notes += (told,)
    else:
        scores, told = _integrated(asked, score)
        notes += (told,)
    figures = _faithfulness(asked, scores, score, draws, seed) if faithfulness else {}
    return Attribution(
        prompt, tuple(units), scores, wanted, other, method, score,
        evaluations=asked.evaluations, notes=notes, **figures,
    )  # fmt: skip


def _marginal(asked: _Prompt, score: float) -> tuple[NDArray[np.float64], str]:
    """What the score loses where each token gives way to those that the model expects there."""
    model, head = asked.model, list(asked.before or asked.model.begin)
    ids = torch.tensor([[*head, *asked.tokens]], device=model.device)
    with torch.inference_mode():
        expected = following(model, ids[:, :-1], len(asked.tokens))[0].log_softmax(-1)
    asked.evaluations += 1
    best, others = expected.topk(min(_EXPECTED, expected.shape[1]), 1)
    rows = []
    for place in range(len(asked.tokens)):
        for other in others[place].tolist():
            changed = [*asked.tokens[:place], other, *asked.tokens[place + 1 :]]
            rows.append([*asked.before, *changed, *asked.after])
    after = asked.of_rows(rows).reshape(len(asked.outputs), len(asked.tokens), -1)
    weights = best.double().cpu().numpy()
    weights = weights - logsumexp(weights, axis=1, keepdims=True)
    signs = np.array([sign for sign, _ in asked.outputs])
    each = score - signs @ logsumexp(after + weights, axis=2)
    scores = np.array([each[unit.first : unit.last].sum() for unit in asked.units])
    covered = float(best.exp().sum(1).mean())
    return scores, f"{best.shape[1]} tokens for each, {covered:.0%} of what the model expects there"


def _surrogate(asked: _Prompt, score: float, seed: int) -> tuple[NDArray[np.float64], str]:
    """Weights of a sparse linear model of the score, over random halves of the units."""
    from sklearn.linear_model import LassoCV

    count = len(asked.units)
    generator = np.random.default_rng(seed)
    kept = generator.random((max(_FEWEST_ABLATIONS, _ABLATIONS * count), count)) < 0.5
    answers = asked.scores(kept)
    spread = float(answers.std())
    if not spread:
        return np.zeros(count), "no ablation changed the score"
    model = LassoCV(cv=5, random_state=seed, max_iter=20_000).fit(kept.astype(float), answers / spread)
    fit = float(model.score(kept.astype(float), answers / spread))
    told = f"lasso over {len(kept)} ablations, which accounts for {fit:.0%} of what they change"
    return np.asarray(model.coef_ * spread, dtype=np.float64), told


def _integrated(asked: _Prompt, score: float) -> tuple[NDArray[np.float64], str]:
    """Integrated gradients of the embeddings, added up over each unit; steps are doubled until they add up.

    The baseline is the replacement's embedding, or the mean of all where there is none.
    """
    from captum.attr import IntegratedGradients

    model = asked.model
    embed = model.network.get_input_embeddings()
    here = torch.tensor([asked.tokens], device=model.device)
    before = torch.tensor([list(asked.before)], device=model.device, dtype=torch.long)
    with torch.no_grad():
        whole = embed(here)
        if asked.replacement is None:
            base = embed.weight.mean(0).expand_as(whole)
        else:
            base = embed(torch.full_like(here, asked.replacement))

    def run(embedded: Tensor) -> Tensor:
        total = embedded.new_zeros(len(embedded), dtype=torch.float32)
        for sign, output in asked.outputs:
            tail = torch.tensor([[*asked.after, *output]], device=model.device)
            parts = [embed(before), embedded, embed(tail[:, :-1])]
            row = torch.cat([part.expand(len(embedded), -1, -1).to(embedded) for part in parts], 1)
            logits = model.network(inputs_embeds=row, use_cache=False, logits_to_keep=len(output)).logits
            wanted = tail[:, -len(output) :].expand(len(embedded), -1)
            said = picked(logits[:, -len(output) :].float(), wanted)
            total = total + sign * said.sum(1)
        return total

    engine = IntegratedGradients(run)
    with torch.no_grad():
        gap = score - float(run(base)[0])
    steps = 32
    rows = max(1, batches_of(model, len(asked.tokens)).size // 4)
    while True:
        found = engine.attribute(whole, baselines=base, n_steps=steps, internal_batch_size=rows)
        asked.evaluations += 2 * steps * len(asked.outputs)
        each = found.sum(-1)[0].double().cpu().numpy()
        off = abs(float(each.sum()) - gap) / max(abs(gap), 1e-9)
        if off <= _COMPLETE or steps >= _MOST_STEPS:
            break
        steps *= 2
    scores = np.array([each[unit.first : unit.last].sum() for unit in asked.units])
    return scores, f"{steps} steps, which add up to the score's change within {off:.1%}"


def _faithfulness(
    asked: _Prompt, scores: NDArray[np.float64], score: float, draws: int, seed: int
) -> dict[str, float]:
    """Comprehensiveness and sufficiency (DeYoung et al. 2020, "ERASER", section 4), and those of chance."""
    count = len(asked.units)
    generator = np.random.default_rng([seed, 1])
    orders = [(-scores).argsort(kind="stable"), *(generator.permutation(count) for _ in range(draws))]
    sizes = [max(1, math.ceil(share * count)) for share in _SHARES]
    kept = np.ones((len(orders), len(sizes), 2, count), dtype=bool)
    for row, order in enumerate(orders):
        for column, size in enumerate(sizes):
            kept[row, column, 0, order[:size]] = False
            kept[row, column, 1] = ~kept[row, column, 0]
    flat = kept.reshape(-1, count)
    unlike, place = np.unique(flat, axis=0, return_inverse=True)
    lost = score - asked.scores(unlike)[place].reshape(len(orders), len(sizes), 2).mean(1)
    random = lost[1:].mean(0) if draws else np.full(2, np.nan)
    return {
        "comprehensiveness": float(lost[0, 0]),
        "comprehensiveness_random": float(random[0]),
        "sufficiency": float(lost[0, 1]),
        "sufficiency_random": float(random[1]),
    }
