"""Discrete search: prompts of whole tokens, each place in turn given the best of the tokens that slopes name.

From greedy coordinate gradient (Zou et al., "Universal and Transferable Adversarial Attacks on Aligned
Language Models", arXiv 2307.15043, section 2.2) come the candidates: tokens whose slope promises most. Three
things differ. All candidates of a step stand in one place, so that what comes before is remembered and only
the rest is seen again. A worse prompt is never taken, and none is scored twice. And where no place can be
bettered, some places are drawn anew and the climb goes on from there, the best prompt kept aside (iterated
local search, Lourenço, Martin and Stützle 2003).
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.objective import Objective

__all__ = ["Climbed", "Discrete", "climb", "generator_of", "random_prompts"]

_TRIES = 50  # draws of what is not refused


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """Settings of the discrete search.

    width: candidates of a step. kick: part of the places that are drawn anew where no step betters a prompt.
    budget: tokens through the model for each row, as `Meter` counts them. enough: a score at which a row
    leaves. patience: kicks in a row that found nothing better, after which it leaves. together: rows that
    climb at a time.
    """

    width: int = 64
    kick: float = 0.3
    budget: int = 200_000
    enough: float = -0.005
    patience: int = 20
    together: int = 64

    def __post_init__(self) -> None:
        for name in ("width", "budget", "patience", "together"):
            if getattr(self, name) < 1:
                raise ParamsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.kick <= 1:
            raise ParamsError(f"kick must lie in (0, 1], not {self.kick}")


@dataclass(frozen=True, eq=False)
class Climbed:
    """The best prompts that were seen.

    tokens: (R, L). scores: (R,). kicks: (R,), how often each row was stuck. spent: (R,) tokens.
    """

    tokens: Tensor
    scores: Tensor
    kicks: Tensor
    spent: Tensor


def random_prompts(
    length: int,
    allowed: Tensor,
    seeds: Sequence[int],
    *,
    refuse: Callable[[list[int]], bool] | None = None,
) -> Tensor:
    """Prompts (R, L), each drawn by its own seed from the tokens that are allowed, bool (V,).

    Token by token, each drawn again, up to a number of times, where what there is so far is refused.
    """
    choices = allowed.nonzero()[:, 0].tolist()
    rows: list[list[int]] = []
    for seed in seeds:
        draws, row = generator_of("start", seed), list[int]()
        while len(row) < length:
            for _ in range(_TRIES):
                token = choices[int(torch.randint(len(choices), (), generator=draws))]
                if refuse is None or not refuse([*row, token]):
                    break
            row.append(token)
        rows.append(row)
    return torch.tensor(rows, device=allowed.device)


def generator_of(*what: object) -> torch.Generator:
    """A generator that is seeded by what it is for."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(eq=False)
class _Row:
    """A prompt on its way, of score minus infinity where it is refused.

    tired: places that were tried since it last got better.
    """

    number: int
    draws: torch.Generator
    current: Tensor
    score: float
    best: Tensor
    best_score: float
    tired: set[int]
    age: int = 0
    kicks: int = 0
    idle: int = 0
    spent: int = 0

    def place(self) -> int:
        """Which place is looked at: all of them in an order that is drawn for each round."""
        turn, at = divmod(self.age, len(self.current))
        return int(torch.randperm(len(self.current), generator=generator_of("round", turn))[at])

    def take(self, place: int, token: int, value: float) -> None:
        """The best candidate of a place, kept where it is better."""
        self.age += 1
        if value > self.score:
            self.current = self.current.clone()
            self.current[place] = token
            self.score = value
            self.tired.clear()
        self.tired.add(place)
        if self.score > self.best_score:
            self.best, self.best_score, self.idle = self.current, self.score, 0

    @property
    def stuck(self) -> bool:
        """Whether no place can be bettered."""
        return len(self.tired) == len(self.current)


def climb(
    objective: Objective,
    starts: Tensor,
    allowed: Tensor,
    settings: Discrete,
    seeds: Sequence[int],
    *,
    refuse: Callable[[list[int]], bool] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Climbed:
    """Climb from prompts (R, L); what a row does depends on its start and its seed alone.

    Rows that are done leave and others enter.

    Parameters
    ----------
    allowed
        bool (V,): tokens that a prompt may hold.
    seeds
        R, one for each row.
    refuse
        Whether a prompt of these tokens will not do, whatever its score; asked of those that would be taken.
    progress
        Told of rows done, of all.
    """
    waiting = deque(range(len(starts)))
    done: dict[int, _Row] = {}
    pool: list[_Row] = []
    words = allowed.nonzero()[:, 0]
    while waiting or pool:
        coming = [waiting.popleft() for _ in range(min(settings.together - len(pool), len(waiting)))]
        if coming:
            first = objective.scores(starts[coming]).tolist()
            for number, value in zip(coming, first, strict=True):
                start, draws = starts[number], generator_of("climb", seeds[number])
                if refuse is not None and refuse(start.tolist()):
                    value = -math.inf
                pool.append(_Row(number, draws, start, value, start, value, set()))
        _step(objective, pool, allowed, settings.width, refuse)
        stuck = [row for row in pool if row.stuck]
        if stuck:
            for row in stuck:
                row.kicks, row.idle = row.kicks + 1, row.idle + 1
                row.tired.clear()
                row.current = _kicked(row.best, words, settings.kick, row.draws, refuse)
                row.spent += objective.tokens_of(len(row.current))
            values = objective.scores(torch.stack([row.current for row in stuck])).tolist()
            for row, value in zip(stuck, values, strict=True):
                row.score = -math.inf if refuse is not None and refuse(row.current.tolist()) else value
        leaving = [
            row
            for row in pool
            if row.spent >= settings.budget
            or row.best_score >= settings.enough
            or row.idle >= settings.patience
        ]
        if leaving:
            done |= {row.number: row for row in leaving}
            pool = [row for row in pool if row.number not in done]
            if progress is not None:
                progress(len(done), len(starts))
    rows = [done[number] for number in range(len(starts))]
    return Climbed(
        torch.stack([row.best for row in rows]),
        torch.tensor([row.best_score for row in rows]),
        torch.tensor([row.kicks for row in rows]),
        torch.tensor([row.spent for row in rows]),
    )


def _step(
    objective: Objective,
    pool: Sequence[_Row],
    allowed: Tensor,
    width: int,
    refuse: Callable[[list[int]], bool] | None,
) -> None:
    """One place of each row: the best of the tokens with the steepest slopes there."""
    current = torch.stack([row.current for row in pool])
    length, count = current.shape[1], len(pool)
    places = [row.place() for row in pool]
    at = torch.tensor(places, device=current.device)
    several = min(width, int(allowed.sum()) - 1)
    own = current.gather(1, at[:, None])
    promise = torch.zeros(count, len(allowed), device=current.device)
    if several < int(allowed.sum()) - 1:
        promise = objective.slopes(current)[1][torch.arange(count, device=current.device), at].float()
        for row in pool:
            row.spent += 3 * objective.tokens_of_slopes(length)
    promise = promise.masked_fill(~allowed, -torch.inf).scatter(1, own, -torch.inf)
    tokens = promise.topk(several, 1).indices
    rows = objective.rows(current)
    for place in sorted(set(places)):
        here = torch.tensor([i for i, one in enumerate(places) if one == place], device=current.device)
        values = objective.swaps(rows, here.repeat_interleave(several), place, tokens[here].flatten())
        for i, each, scores in zip(here.tolist(), tokens[here], values.view(-1, several), strict=True):
            pool[i].spent += len(objective.before) + length
            pool[i].spent += several * objective.tokens_of(length, place)
            pool[i].take(place, *_first_that_may(pool[i], place, each, scores, refuse))


def _first_that_may(
    row: _Row, place: int, tokens: Tensor, scores: Tensor, refuse: Callable[[list[int]], bool] | None
) -> tuple[int, float]:
    """The best candidate that is not refused, of those that would be taken."""
    for i in scores.argsort(descending=True, stable=True).tolist():
        token, value = int(tokens[i]), float(scores[i])
        if refuse is None or value <= min(row.score, row.best_score):
            return token, value
        changed = row.current.tolist()
        changed[place] = token
        if not refuse(changed):
            return token, value
    return int(row.current[place]), -math.inf


def _kicked(
    prompt: Tensor,
    words: Tensor,
    part: float,
    draws: torch.Generator,
    refuse: Callable[[list[int]], bool] | None,
) -> Tensor:
    """A prompt with some places drawn anew, again and again where it is refused."""
    for _ in range(_TRIES):
        places = torch.randperm(len(prompt), generator=draws)[: max(1, round(part * len(prompt)))]
        drawn = torch.randint(len(words), (len(places),), generator=draws)
        out = prompt.clone()
        out[places.to(prompt.device)] = words[drawn.to(prompt.device)]
        if refuse is None or not refuse(out.tolist()):
            break
    return out
