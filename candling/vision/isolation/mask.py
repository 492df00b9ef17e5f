"""A learned mask: the part of a picture of a given area that makes the class, and whose loss unmakes it.

After Fong, Patrick and Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks"
(arXiv 1910.08485), from its description: a smooth mask of few parameters, and a loss on its sorted values
that holds it to an area. Of its games both are played at once, because either alone is won by cheating: on a
network that needs little, a mask that keeps a class lies anywhere, and one that hides it is shown the crumbs
that tip it. Every image, class and area is a row of one batch. Where the paper takes 800
steps, slopes are counted here in parts of each row's steepest, as those of a class that is certain die away,
and what pulls to the area grows as fast as the steps are few. All that is done beside the model's passes is
done on the mask's few parameters: what the model's slope says of pixels comes down to them by two small
matrix products, without a graph.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from candling.errors import ModelError, ParamsError
from candling.models import evaluating
from candling.models.memory import keeping_memory
from candling.models.running import refuse_black_box
from candling.vision.isolation.fills import FILLS, Fill, filled
from candling.vision.isolation.found import Asked, Found
from candling.vision.isolation.gradients import class_odds_of
from candling.vision.isolation.resampling import from_cells
from candling.vision.isolation.settings import check_choice, check_number, check_whole

__all__ = ["Mask", "learn"]

Game = Literal["keep", "hide", "both"]

_MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Learned masks; evidence is the share of the areas whose mask holds a pixel, from 0 to 1.

    It says what makes the class, and nothing of what speaks against it.

    areas: parts of the picture that a mask may hold, each a mask of its own. game: whether the class is to
    stay where the mask's part alone is seen, ``keep``, to go where it is hidden, ``hide``, or ``both``, which
    takes twice the passes. steps: at most. cells: of the mask along the shorter side. spread: of the Gaussian
    by which a cell becomes pixels, in cells. fill: what is seen where the mask is 0. learning_rate: how far
    the steepest of a mask's values, which go from 0 to 1, moves in the first steps; it falls as a cosine.
    pull: the part of the way to a mask of just that area that is gone in the first and in the last step.
    still: past half of the steps, a row leaves once its mask moves less than this, on average, in a step.
    """

    areas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    game: Game = "both"
    steps: int = 100
    cells: int = 28
    spread: float = 0.7
    fill: Fill = "blur"
    learning_rate: float = 0.1
    pull: tuple[float, float] = (0.1, 0.5)
    still: float = 0.001

    def __post_init__(self) -> None:
        if not self.areas:
            raise ParamsError("areas is empty; name one at least")
        for area in self.areas:
            if isinstance(area, bool) or not isinstance(area, int | float) or not 0 < area < 1:
                raise ParamsError(f"an area is {area!r}; it must be a part of the picture between 0 and 1")
        check_whole("steps", self.steps)
        check_whole("cells", self.cells, 2)
        check_number("spread", self.spread, 0.1)
        check_choice("game", self.game, get_args(Game))
        check_choice("fill", self.fill, FILLS)
        check_number("learning_rate", self.learning_rate, 1e-6)
        check_number("still", self.still, 0)
        if len(self.pull) != 2 or not 0 < self.pull[0] <= self.pull[1] <= 1:
            raise ParamsError(
                f"pull is {self.pull!r}; it must be two numbers above 0, the larger last, up to 1"
            )


class _Pool:
    """Rows that climb together: masks (P, h, w) and the average of their slopes, in parts of the steepest."""

    def __init__(self, cells: tuple[int, int], device: torch.device) -> None:
        self.rows: list[int] = []
        self.ages: list[int] = []
        self.masks = torch.zeros(0, *cells, device=device)
        self.heading = self.masks.clone()

    def let_in(self, waiting: deque[int], room: int, areas: Tensor) -> None:
        """Fill up with rows that wait; each begins as an even mask of its area."""
        coming = [waiting.popleft() for _ in range(min(room - len(self.rows), len(waiting)))]
        if not coming:
            return
        even = areas[coming, None, None].expand(-1, *self.masks.shape[1:])
        self.masks = torch.cat([self.masks, even])
        self.heading = torch.cat([self.heading, torch.zeros_like(even)])
        self.rows += coming
        self.ages += [0] * len(coming)

    def keep(self, staying: list[int]) -> None:
        """Forget the rows at other places."""
        self.masks, self.heading = self.masks[staying], self.heading[staying]
        self.rows, self.ages = [self.rows[i] for i in staying], [self.ages[i] for i in staying]

    def step(self, slopes: Tensor, areas: Tensor, settings: Mask) -> Tensor:
        """Follow slopes (P, h, w), then be pulled to the area; how far each mask moved on average (P,).

        Slopes are in parts of the row's steepest, because they die away as the class becomes certain.
        """
        steepest = slopes.abs().amax((1, 2), keepdim=True).clamp_min(1e-30)
        self.heading.lerp_(slopes / steepest, 1 - _MOMENTUM)
        self.ages = [age + 1 for age in self.ages]
        age = torch.tensor(self.ages, device=slopes.device)[:, None, None]
        rate = settings.learning_rate * (0.5 + 0.5 * torch.cos(math.pi * age / (settings.steps + 1)))
        begin, end = settings.pull
        pull = begin * (end / begin) ** ((age - 1) / max(settings.steps - 1, 1))
        before = self.masks
        # The heading is an average that began at nothing.
        moved = before + rate * self.heading / (1 - _MOMENTUM**age)
        self.masks = (moved + pull * _to_area(moved, areas)).clamp_(0, 1)
        return (self.masks - before).abs().mean((1, 2))


def learn(asked: Asked, settings: Mask) -> Found:
    """Evidence maps as the mean over areas of the masks that make each class."""
    refuse_black_box(asked.model, "its gradient")
    images, device = asked.images, asked.images.device
    height, width = images.shape[2:]
    each, areas = asked.classes.shape[1], len(settings.areas)
    # Row r is of image r // (K·A), class r // A % K and area r % A.
    count = len(images) * each * areas
    place = torch.arange(count, device=device)
    image, target = place // (each * areas), asked.classes.flatten()[place // areas]
    wanted = torch.tensor(settings.areas, device=device)[place % areas]
    cells = tuple(max(2, round(settings.cells * side / min(height, width))) for side in (height, width))
    tall, wide = (
        from_cells(few, side, settings.spread).to(device)
        for few, side in zip(cells, (height, width), strict=True)
    )
    # Channels last, as the model wants pictures, so that what is made of them is too.
    last = torch.channels_last
    base = filled(images, settings.fill).contiguous(memory_format=last)
    over = (images - base).contiguous(memory_format=last)
    odds = class_odds_of(asked.model)
    masks = torch.empty(count, *cells, device=device)
    # Both ways to look through a mask, seen as kept and as hidden.
    ways = [True, False] if settings.game == "both" else [settings.game == "keep"]
    done_of_image = [0] * len(images)
    pool, waiting, evaluations, finished = _Pool((cells[0], cells[1]), device), deque(range(count)), 0, 0
    with evaluating(asked.model), keeping_memory():
        while waiting or pool.rows:
            pool.let_in(waiting, max(asked.batches.size // len(ways), 1), wanted)
            rows = torch.tensor(pool.rows, device=device)
            up = tall @ pool.masks @ wide.T

            def slope(part: slice, rows: Tensor = rows, up: Tensor = up) -> Tensor:
                own, label = image[rows[part]], target[rows[part], None]
                with torch.no_grad():
                    looks = [up[part, None] if kept else 1 - up[part, None] for kept in ways]
                    seen = torch.cat([torch.addcmul(base[own], over[own], look) for look in looks])
                    seen = seen.contiguous(memory_format=last)
                seen.requires_grad_()
                with torch.enable_grad():
                    value = odds(seen).gather(1, label.repeat(len(ways), 1)).view(len(ways), -1)
                    # log p of log-odds, and log (1 - p): their slopes die away once the class is certain.
                    won = [one if kept else -one for one, kept in zip(value, ways, strict=True)]
                    gain = -torch.nn.functional.softplus(-torch.stack(won)).sum()
                    (found,) = torch.autograd.grad(gain, seen)
                sides = [
                    one if kept else -one for one, kept in zip(found.chunk(len(ways)), ways, strict=True)
                ]
                return torch.einsum("nchw,nchw->nhw", sum(sides), over[own])

            pixels = torch.cat(asked.batches.over(len(rows), slope))
            if not torch.isfinite(pixels).all():
                raise ModelError("the slope of the log-odds is NaN or infinite for a masked picture")
            evaluations += 2 * len(ways) * len(rows)
            moved = pool.step(tall.T @ pixels @ wide, wanted[rows], settings).tolist()
            ended = [
                pool.ages[i] >= settings.steps
                or (2 * pool.ages[i] > settings.steps and moved[i] < settings.still)
                for i in range(len(moved))
            ]
            if any(ended):
                for i, gone in enumerate(ended):
                    if gone:
                        masks[pool.rows[i]] = pool.masks[i]
                        done_of_image[pool.rows[i] // (each * areas)] += 1
                pool.keep([i for i, gone in enumerate(ended) if not gone])
                whole = sum(done == each * areas for done in done_of_image)
                if whole > finished:
                    finished = whole
                    asked.tell(whole)
    maps = (tall @ masks @ wide.T).view(len(images), each, areas, height, width).mean(2)
    return Found(maps, evaluations)


def _to_area(masks: Tensor, areas: Tensor) -> Tensor:
    """From masks (P, h, w) to those that are 1 at their largest values, as many as the area has, and else 0.

    It is down the slope of half the squared distance of sorted masks from such a one, the paper's loss.
    """
    flat = masks.flatten(1)
    order = flat.argsort(1, descending=True)
    some = (areas * flat.shape[1]).round().clamp_min(1)
    ones = torch.arange(flat.shape[1], device=flat.device) < some[:, None]
    ideal = torch.zeros_like(flat).scatter_(1, order, ones.to(flat.dtype))
    return (ideal - flat).view_as(masks)
