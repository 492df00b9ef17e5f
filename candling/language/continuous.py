"""Continuous search: prompts as embeddings, or as odds over the vocabulary, that slopes move.

*Embeddings* begin at random or between tokens, climb the score, and are pulled ever harder to the nearest
embedding of the vocabulary, since a point between tokens is no prompt. *Gumbel* prompts are odds over the
vocabulary, of which a sample is seen as if it were a token while its slope is that of the mixture (Jang, Gu
and Poole, arXiv 1611.01144, section 2.2). At every step the nearest whole tokens are scored too, and the best
of them is what counts: a soft prompt that says the target is told apart from a hard one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.objective import Objective
from candling.language.search import generator_of

__all__ = ["Continuous", "Relaxed", "relax"]

Form = Literal["embeddings", "gumbel"]
Begin = Literal["random", "centroids", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """Settings of the continuous search.

    form: what moves. begin: where embeddings begin: ``random``, as far from the vocabulary's mean as its
    tokens are; ``centroids``, the means of eight tokens each; ``tokens``, the prompts that are given. steps:
    how many, each a pass forward and one back, and one forward for the whole tokens. rate: of Adam, in parts
    of the embeddings' spread. pull: weight of the squared distance to the nearest token, in the same parts,
    at the last step; it begins at none. temperature: of Gumbel prompts, from the first step to the last.
    """

    form: Form = "embeddings"
    begin: Begin = "random"
    steps: int = 100
    rate: float = 0.1
    pull: float = 1.0
    temperature: tuple[float, float] = (2.0, 0.3)

    def __post_init__(self) -> None:
        for name, known in (("form", get_args(Form)), ("begin", get_args(Begin))):
            if getattr(self, name) not in known:
                raise ParamsError(
                    f"{name} {getattr(self, name)!r} is not known; there are {', '.join(known)}"
                )
        if self.steps < 1:
            raise ParamsError(f"steps must be at least 1, not {self.steps}")
        if self.rate <= 0 or self.pull < 0 or min(self.temperature) <= 0:
            raise ParamsError("rate and temperature must lie above 0, and pull at 0 or above")


@dataclass(frozen=True, eq=False)
class Relaxed:
    """tokens (R, L), scores (R,): the best whole tokens that were seen. soft (R,): the best soft scores."""

    tokens: Tensor
    scores: Tensor
    soft: Tensor


def relax(
    objective: Objective, starts: Tensor, allowed: Tensor, settings: Continuous, seeds: list[int]
) -> Relaxed:
    """Move soft prompts, and keep the best whole tokens near them.

    Parameters
    ----------
    starts
        int (R, L), where prompts begin if the settings say ``tokens``; else they say how many and how long.
    allowed
        bool (V,): tokens that a prompt may hold.
    seeds
        R, one for each row.
    """
    weights = objective.model.network.get_input_embeddings().weight.detach()
    words = allowed.nonzero()[:, 0]
    table = weights[words].float()
    spread = float((table - table.mean(0)).square().mean().sqrt())
    draws = [generator_of("relax", seed) for seed in seeds]
    if settings.form == "embeddings":
        moving = _begun(starts, table, weights, settings.begin, spread, draws)
    else:
        moving = torch.stack([torch.randn(starts.shape[1], len(words), generator=one) for one in draws]).to(
            table
        )
    adam = torch.optim.Adam([moving], lr=settings.rate * (spread if settings.form == "embeddings" else 1.0))
    best, best_score = starts.clone(), objective.scores(starts)
    soft = torch.full_like(best_score, -torch.inf)
    for step in range(settings.steps):
        done = step / max(1, settings.steps - 1)
        if settings.form == "embeddings":
            score, slope = objective.slopes_of(moving.to(weights.dtype))
            near = torch.cdist(moving, table).argmin(-1)
            away = (moving - table[near]) / spread**2
            gradient = -slope.float() + settings.pull * done * away
        else:
            warm, cold = settings.temperature
            temperature = warm * (cold / warm) ** done
            noise = torch.stack([_gumbel(moving.shape[1:], one) for one in draws]).to(moving)
            shares = ((moving + noise) / temperature).softmax(-1)
            near = shares.argmax(-1)
            score, slope = objective.slopes_of(table[near].to(weights.dtype))
            # The slope by the mixture, back through its softmax.
            by_share = slope.float() @ table.T
            gradient = -shares * (by_share - (shares * by_share).sum(-1, keepdim=True)) / temperature
        soft = torch.maximum(soft, score)
        moving.grad = gradient
        adam.step()
        hard = words[near]
        value = objective.scores(hard)
        better = value > best_score
        best[better], best_score[better] = hard[better], value[better]
    return Relaxed(best, best_score, soft)


def _begun(
    starts: Tensor, table: Tensor, weights: Tensor, begin: Begin, spread: float, draws: list[torch.Generator]
) -> Tensor:
    if begin == "tokens":
        return weights[starts].float().clone()
    length, width = starts.shape[1], table.shape[1]
    rows = []
    for draw in draws:
        if begin == "random":
            rows.append(table.mean(0).cpu() + spread * torch.randn(length, width, generator=draw))
        else:
            few = torch.randint(len(table), (length, 8), generator=draw)
            rows.append(table.cpu()[few].mean(1))
    return torch.stack(rows).to(table)


def _gumbel(shape: torch.Size, draw: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=draw).clamp(math.ulp(1.0), 1 - 1e-7)
    return -(-uniform.log()).log()
