"""Rows on their way: a model answers some at a time, those that have ended leave and others take their place.

A row is a walk, a generator that gives pictures to be looked at and is sent what the model says of each. The
model sees a fixed number of rows in each pass, blanks among them where fewer are on their way, so that what
becomes of a row does not depend on its company.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Batches, Classifier, evaluating, scores
from candling.models.heads import class_shares
from candling.models.memory import keeping_memory
from candling.models.running import refuse_black_box
from candling.models.spec import Head
from candling.vision.adversarial.goals import Goal
from candling.vision.adversarial.methods import Ball, Method
from candling.vision.climbing import row_generator, seen_together
from candling.vision.preflight import as_scores

__all__ = ["Answer", "Done", "End", "Row", "Rules", "Walk", "attempts", "let_walk"]

T = TypeVar("T")


class Answer(NamedTuple):
    """What a model says of a picture: how sure it is of what fools, what descends, and its gradient if asked.

    sure: see `Goal.sure`. probabilities: (K,). gradient: (C, H, W), None where it was not asked for.
    """

    sure: float
    descent: float
    probabilities: Tensor
    gradient: Tensor | None


Walk = Generator[tuple[Tensor, bool], Answer, T]
"""Gives pictures (C, H, W), each with whether its gradient is asked for, and takes answers."""


@dataclass(frozen=True)
class Rules:
    """Of all walks: the probability that what fools must have, 8 bits or floats, and who leaves."""

    probability: float | None
    rounded: bool
    leave: bool
    seed: int

    def fooled(self, said: Answer) -> bool:
        return said.sure >= (self.probability or 0.0)


@dataclass(frozen=True)
class Row:
    """A picture (C, H, W) in [0, 1], the class of its goal, and where its first walk starts if not there."""

    origin: Tensor
    goal: str
    place: int
    start: Tensor | None = None

    def generator(self, run: int, seed: int) -> torch.Generator:
        """Of a walk's start: by the picture, its goal and how many walks went before."""
        picture = hashlib.sha256(self.origin.cpu().float().contiguous().numpy().tobytes()).hexdigest()
        return row_generator("attack", picture, self.goal, self.place, run, seed)


@dataclass(frozen=True)
class End:
    """Where a walk ended: the picture looked at last, the point that it stands for, and the answer."""

    picture: Tensor
    here: Tensor
    said: Answer
    fooled: bool


def _walk(row: Row, method: Method, here: Tensor, rules: Rules) -> Walk[End]:
    """One walk from `here`: as many steps as the method has, and a look at where they led."""
    left = method.steps
    while True:
        seen = method.saved(here, row.origin) if rules.rounded else here
        said = yield seen, left > 0
        fooled = rules.fooled(said)
        if left == 0 or (fooled and rules.leave):
            return End(seen, here, said, fooled)
        if said.gradient is None:
            raise ValueError("a gradient was asked for and none was given")
        # Of the picture as it would be saved, but it is the unrounded point that moves: steps shorter than a
        # level add up.
        here, left = method.step(here, said.gradient, row.origin), left - 1


def attempts(row: Row, method: Method, rules: Rules) -> Walk[End]:
    """A walk, and restarts of it where it did not fool; the best of them."""
    best: End | None = None
    for run in range(1 + (method.restarts if isinstance(method, Ball) else 0)):
        here = row.origin if row.start is None else row.start
        if isinstance(method, Ball) and (run or (method.random_start and row.start is None)):
            here = method.drawn(row.origin, row.generator(run, rules.seed))
        end = yield from _walk(row, method, here, rules)
        if best is None or (end.fooled, -end.said.descent) > (best.fooled, -best.said.descent):
            best = end
        if end.fooled and rules.leave:
            break
    assert best is not None
    return best


class Done(NamedTuple):
    """Of each walk what it returned and the pictures looked at; what was found out about the outputs."""

    ends: list[Any]
    evaluations: list[int]
    notes: tuple[str, ...]


@dataclass
class _Lane:
    """A walk under way, and the picture that waits for an answer."""

    index: int
    walk: Walk[Any]
    picture: Tensor
    slope: bool


def let_walk(
    model: nn.Module,
    walks: Sequence[Walk[T]],
    goal: Goal,
    *,
    shape: tuple[int, int, int],
    device: torch.device,
    batch: int | None,
    progress: Callable[[int, int], None] | None,
) -> Done:
    """Run walks to their ends.

    Parameters
    ----------
    walks
        One for each row of the goal.
    shape
        Channels, height and width of the pictures.
    batch
        Rows that the model sees in one pass; None: as many as suit the device.

    Raises
    ------
    ModelError
        If the model is a black box, does not take the pictures, gives no gradient or what is not finite.
    ParamsError
        If the goal has a class that the model does not.
    """
    refuse_black_box(model, "its gradient")
    with evaluating(model), keeping_memory():
        read, notes = as_scores(model, shape)
        together = batch or seen_together(shape[1:], device)
        ends, evaluations = _run(_Asker(read, goal, device, Batches(together)), walks, progress)
    return Done(ends, evaluations, notes)


def _run(
    asker: _Asker, walks: Sequence[Walk[T]], progress: Callable[[int, int], None] | None
) -> tuple[list[T], list[int]]:
    """What each walk returned, and how many of its pictures were looked at."""
    together = asker.batches.size
    waiting, lanes = iter(enumerate(walks)), list[_Lane]()
    ends: dict[int, T] = {}
    evaluations = [0] * len(walks)
    while True:
        for index, walk in itertools.islice(waiting, together - len(lanes)):
            lanes.append(_Lane(index, walk, *next(walk)))
        if not lanes:
            return [ends[i] for i in range(len(walks))], evaluations
        going = []
        for lane, said in zip(lanes, asker.ask(lanes), strict=True):
            evaluations[lane.index] += 1
            try:
                lane.picture, lane.slope = lane.walk.send(said)
                going.append(lane)
            except StopIteration as stop:
                ends[lane.index] = stop.value
                if progress is not None:
                    progress(len(ends), len(walks))
        lanes = going


class _Asker:
    """A model that is asked about pictures of lanes."""

    def __init__(self, model: nn.Module, goal: Goal, device: torch.device, batches: Batches) -> None:
        self.model, self.goal, self.device, self.batches = model, goal, device, batches
        self.head: Head = model.head if isinstance(model, Classifier) else "softmax"

    def ask(self, lanes: Sequence[_Lane]) -> list[Answer]:
        parts = self.batches.over(len(lanes), lambda rows: self._ask(lanes[rows]))
        return [one for part in parts for one in part]

    def _ask(self, lanes: Sequence[_Lane]) -> list[Answer]:
        images = torch.stack([lane.picture for lane in lanes])
        blanks = max(0, self.batches.size - len(lanes))
        images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, blanks), value=0.5)
        images = images.contiguous(memory_format=torch.channels_last)
        slope = any(lane.slope for lane in lanes)
        classes = self.goal.classes[[lane.index for lane in lanes]].to(self.device)
        with torch.set_grad_enabled(slope):
            images.requires_grad_(slope)
            logits = self._logits(images)[: len(lanes)]
            descent = self.goal.descent(logits, classes, self.head)
            gradients = _gradients(descent, images) if slope else None
        found = logits.detach()
        sure = self.goal.sure(found, classes, self.head).tolist()
        falls, probabilities = descent.detach().tolist(), class_shares(found, self.head).cpu()
        return [
            Answer(sure[i], falls[i], probabilities[i],
                   gradients[i] if gradients is not None and lane.slope else None)
            for i, lane in enumerate(lanes)
        ]  # fmt: skip

    def _logits(self, images: Tensor) -> Tensor:
        """Logits (B, K), of dense scores the mean over places."""
        found = scores(self.model(images))
        found = found.flatten(2).mean(2) if found.dim() == 4 else found
        if not torch.isfinite(found).all():
            raise ModelError("the model returned NaN or infinite logits for a picture under attack")
        most, count = int(self.goal.classes.max()), found.shape[1]
        if most >= count:
            raise ParamsError(f"there is no class {most}; the model has {count}, 0 to {count - 1}")
        return found


def _gradients(descent: Tensor, images: Tensor) -> Tensor:
    found = None
    if descent.requires_grad:
        (found,) = torch.autograd.grad(descent.sum(), images, allow_unused=True)
    if found is None:
        raise ModelError(
            "the gradient of the logits does not reach the picture; look for argmax, rounding, detach or "
            "no_grad inside the model"
        )
    if not torch.isfinite(found).all():
        raise ModelError("the gradient of the logits is NaN or infinite for a picture under attack")
    # Without the format of the pass, so that sums over a row are taken in the same order everywhere.
    return found.contiguous(memory_format=torch.contiguous_format)
