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
from dataclasses import dataclass

import torch
from torch import Tensor

from candling.errors import ParamsError
from candling.language.objective import Objective, Rows

__all__ = ["Climbed", "Discrete", "climb", "generator_of", "random_prompts"]


@dataclass(frozen=True, kw_only=True)
class Discrete:
    """Settings of the discrete search.

    width: candidates of a step. kick: part of the places that are drawn anew where no step betters a prompt.
    budget: tokens through the model for each row, as `Meter` counts them.
    """

    width: int = 64
    kick: float = 0.3
    budget: int = 200_000

    def __post_init__(self) -> None:
        for name in ("width", "budget"):
            if getattr(self, name) < 1:
                raise ParamsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.kick <= 1:
            raise ParamsError(f"kick must lie in (0, 1], not {self.kick}")


@dataclass(frozen=True, eq=False)
class Climbed:
    """The best prompts that were seen: tokens (R, L), scores (R,), and how often each row was kicked (R,)."""

    tokens: Tensor
    scores: Tensor
    kicks: Tensor


def random_prompts(count: int, length: int, allowed: Tensor, seeds: list[int]) -> Tensor:
    """Prompts (count, length), each drawn by its own seed from the tokens that are allowed, bool (V,)."""
    choices = allowed.nonzero()[:, 0].cpu()
    rows = [
        choices[torch.randint(len(choices), (length,), generator=generator_of("start", seed))]
        for seed in seeds
    ]
    return torch.stack(rows[:count]).to(allowed.device)


def generator_of(*what: object) -> torch.Generator:
    """A generator that is seeded by what it is for."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def climb(
    objective: Objective, starts: Tensor, allowed: Tensor, settings: Discrete, seeds: list[int]
) -> Climbed:
    """Climb from prompts (R, L), all of them in one batch; what a row does depends on its seed alone.

    Parameters
    ----------
    allowed
        bool (V,): tokens that a prompt may hold.
    seeds
        R, one for each row.
    """
    count, length = starts.shape
    current = starts.clone()
    score = objective.scores(current)
    best, best_score = current.clone(), score.clone()
    kicks = torch.zeros(count, dtype=torch.long, device=starts.device)
    draws = [generator_of("climb", seed) for seed in seeds]
    # Places of a row that were tried since it last got better; when all were, it is kicked.
    tired = torch.zeros(count, length, dtype=torch.bool, device=starts.device)
    begun = objective.meter.total
    step = 0
    while objective.meter.total - begun < settings.budget * count:
        place = _place(step, length)
        step += 1
        found, value = _best_swap(objective, current, place, allowed, settings.width)
        better = value > score
        current[better, place] = found[better]
        score = torch.where(better, value, score)
        tired[better] = False
        tired[:, place] = True
        leading = score > best_score
        best[leading], best_score[leading] = current[leading], score[leading]
        stuck = tired.all(1)
        if stuck.any():
            # From the best, or from where the row stands if that is nearly as good.
            rows = stuck.nonzero()[:, 0]
            current[rows] = best[rows]
            for row in rows.tolist():
                current[row] = _kicked(current[row], allowed, settings.kick, draws[row])
            score[rows] = objective.scores(current[rows])
            tired[rows] = False
            kicks[rows] += 1
    return Climbed(best, best_score, kicks)


def _place(step: int, length: int) -> int:
    """Which place is looked at: all in an order that is drawn for each round."""
    turn, at = divmod(step, length)
    return int(torch.randperm(length, generator=generator_of("round", turn))[at])


def _best_swap(
    objective: Objective, current: Tensor, place: int, allowed: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """The best token (R,) of those with the steepest slopes in one place, and its score (R,)."""
    count = len(current)
    several = min(width, int(allowed.sum()) - 1)
    if several < int(allowed.sum()) - 1:
        _, slopes = objective.slopes(current)
        promise = slopes[:, place].float()
    else:
        promise = torch.zeros(count, len(allowed), device=current.device)
    promise = promise.masked_fill(~allowed, -torch.inf)
    promise.scatter_(1, current[:, place, None], -torch.inf)
    tokens = promise.topk(several, 1).indices
    rows = objective.rows(current) if place or len(objective.before) else Rows(current, None)
    row = torch.arange(count, device=current.device).repeat_interleave(several)
    value = objective.swaps(rows, row, place, tokens.flatten()).view(count, several)
    top = value.argmax(1)
    return tokens.gather(1, top[:, None])[:, 0], value.gather(1, top[:, None])[:, 0]


def _kicked(prompt: Tensor, allowed: Tensor, part: float, draws: torch.Generator) -> Tensor:
    """A prompt with some places drawn anew."""
    length, choices = len(prompt), allowed.nonzero()[:, 0]
    places = torch.randperm(length, generator=draws)[: max(1, round(part * length))]
    drawn = torch.randint(len(choices), (len(places),), generator=draws)
    out = prompt.clone()
    out[places.to(prompt.device)] = choices[drawn.to(prompt.device)]
    return out
