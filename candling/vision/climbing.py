"""The optimiser: many objectives climb side by side, each a row of one batch.

A row is drawn, rendered, moved, seen by the model, and follows its own gradient with Adam. It grows: most of
its steps are taken on a small picture, where they cost least, and what it shows there is carried over to the
next size. Rows that have climbed enough leave and waiting rows take their place, so that a thousand
objectives need the memory of one batch. Whatever is random about a row comes from a generator seeded by what
the row is, so that its result does not depend on its neighbours, on the batch or on the order, but for the
rounding of sums; with `diversity`, which is about the seeds of one objective, these stay together.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Classifier, batch_size, evaluating, layers, recording, scores
from candling.vision import regularisers
from candling.vision.objectives import Objective, evaluate
from candling.vision.parameterisations import (
    Fourier,
    Maco,
    Parameterisation,
    Pixels,
    backgrounds,
    composite,
)
from candling.vision.priors import Prior
from candling.vision.transforms import ROBUSTNESS, move, moves

__all__ = ["FOURIER", "MACO", "Climb", "Climbed", "Row", "climb", "parameterise", "row_generator", "sizes"]

Progress = Callable[[int, int], None]

_PARAMETERISATIONS: dict[str, Callable[[Prior, float, bool], Parameterisation]] = {
    "fourier": Fourier,
    "maco": Maco,
    "pixels": Pixels,
}
_BETAS = (0.9, 0.99)
_SMALLEST = 64  # pixels of the shorter side: a picture that is smaller has nothing to gain from growing
_MEMORY = 8  # steps over which a score is averaged
_BACKGROUNDS = 8  # that a picture with opacity is shown before, in turn


@dataclass(frozen=True)
class Climb:
    """How to climb; `MACO` and `FOURIER` are what works for each parameterisation.

    Each row starts from the one of `starts` draws that climbed highest in `heat` steps and climbs for
    `steps` more. A network that knows few pictures answers many with no unit at all, and from there no
    gradient leads anywhere; a climb that got away is seen to within a few steps.

    parameterisation, contrast, alpha: see `candling.vision.parameterisations`.
    learning_rate: of Adam, in the parameterisation's units; None: what suits it. It falls to 0 as a cosine.
    robustness: a name in `candling.vision.transforms.ROBUSTNESS`, ``none`` to ``xl``.
    growth: sizes in parts of the final side, and parts of the steps taken there.
    total_variation, high_frequency, l1, l2: how strongly the gradient is turned against each penalty: at 1,
    a picture with as much of it as a photograph has (penalty 1) is pulled back as strongly as up.
    blur: of the gradient, as a standard deviation in parts of the longer side.
    diversity: how strongly the seeds of one objective are pushed apart, in parts of the objective's value.
    enough: a row leaves when its class has this probability under transforms just drawn, averaged over the
    last steps; None: no row does. patience: a row leaves after so many steps without a better average.
    precision: of the model's arithmetic; the picture's own is always float32.
    """

    parameterisation: Literal["fourier", "maco", "pixels"] = "maco"
    seeds: int = 8
    steps: int = 160
    starts: int = 8
    heat: int = 8
    learning_rate: float | None = None
    contrast: float = 0.7
    alpha: bool = False
    robustness: str = "s"
    growth: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    total_variation: float = 0.0
    high_frequency: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    blur: float = 0.0
    diversity: float = 0.0
    enough: float | None = None
    patience: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.robustness not in ROBUSTNESS:
            raise ParamsError(f"robustness {self.robustness!r} is none of {', '.join(ROBUSTNESS)}")
        if min(self.seeds, self.steps, self.starts, self.heat) < 1:
            raise ParamsError("seeds, steps, starts and heat are whole numbers from 1")
        if self.parameterisation not in _PARAMETERISATIONS:
            raise ParamsError(
                f"parameterisation {self.parameterisation!r} is none of {', '.join(_PARAMETERISATIONS)}"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise ParamsError(f"precision {self.precision!r} is neither float32 nor bfloat16")
        parts, shares = [part for part, _ in self.growth], [share for _, share in self.growth]
        whole = bool(shares) and min(shares) > 0 and math.isclose(sum(shares), 1) and parts[-1] == 1
        if not whole or parts != sorted(parts) or parts[0] <= 0:
            raise ParamsError(
                f"growth {self.growth}: sizes grow up to 1, the whole side, and parts of steps add up to 1"
            )


MACO = Climb()
FOURIER = Climb(
    parameterisation="fourier", seeds=4, steps=128, starts=1, contrast=0.05, robustness="m"
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One picture to be made: what it climbs, and which of several it is."""

    objective: Objective
    seed: int = 0


@dataclass(frozen=True)
class Climbed:
    """A row that has left: its picture as it is saved, the steps it took and its last average score.

    image: uint8 (C, H, W), with alpha (C + 1, H, W). score: of the objective, under the transforms of the
    last steps, each seen once and before the step that used it.
    """

    image: Tensor
    steps: int
    score: float


def row_generator(*what: object) -> torch.Generator:
    """A generator seeded by what a row is (objective, seed, …) and by nothing else."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def parameterise(prior: Prior, settings: Climb) -> Parameterisation:
    """The parameterisation that the settings name, for pictures of the prior's size."""
    return _PARAMETERISATIONS[settings.parameterisation](prior, settings.contrast, settings.alpha)


def _takes(
    model: nn.Module,
    channels: int,
    size: tuple[int, int],
    device: torch.device,
    objectives: Sequence[Objective],
) -> bool:
    """Whether the model answers pictures of this size, and all that is to be read is there."""
    wanted = {name for objective in objectives for name in objective.layers}
    try:
        with torch.no_grad(), recording(model, wanted) as found:
            found[""] = scores(model(torch.full((1, channels, *size), 0.5, device=device)))
        for term in {term for objective in objectives for _, term in objective.terms}:
            term.fit(found[term.layer].shape)
    except (RuntimeError, ValueError, AssertionError, LookupError, ModelError):
        return False  # position embeddings, or too small for the strides: it stays with its own size
    return True


def sizes(
    model: nn.Module,
    parameterisation: Parameterisation,
    settings: Climb,
    device: torch.device,
    objectives: Sequence[Objective] = (),
) -> list[tuple[tuple[int, int], int]]:
    """Sizes that pictures grow through, each with its steps.

    Left out are those that the model does not take, or where an objective's place or token is not there.
    """
    final = parameterisation.size
    found: dict[tuple[int, int], float] = {}
    waiting = 0.0
    for part, share in settings.growth:
        grow = max(part, min(1.0, _SMALLEST / min(final)))
        size = (round(final[0] * grow), round(final[1] * grow))
        if size != final and not _takes(model, parameterisation.channels, size, device, objectives):
            waiting += share
            continue
        found[size] = found.get(size, 0.0) + share + waiting
        waiting = 0.0
    done, taken, out = 0.0, 0, []
    for size, share in found.items():
        done += share
        # One step at least is taken at the final size, however few there are.
        steps = settings.steps if size == final else min(round(settings.steps * done), settings.steps - 1)
        steps -= taken
        taken += steps
        if steps or size == final:
            out.append((size, steps))
    return out


@dataclass
class _Member:
    """A row on its way: its moves to come, steps taken in all and at this size, and its average score."""

    index: int
    row: Row
    moves: Tensor
    generator: torch.Generator
    total: int
    own: int | None
    decay: bool = True
    taken: int = 0
    here: int = 0
    score: float = math.nan
    likely: float = 0.0
    best: float = -math.inf
    since: int = 0

    def note(self, score: float, likely: float | None) -> None:
        """Remember what the model said of the picture under transforms just drawn."""
        self.taken, self.here = self.taken + 1, self.here + 1
        weight = 1 / min(self.here, _MEMORY)
        self.score = score if self.here == 1 else self.score + weight * (score - self.score)
        if likely is not None:
            self.likely += weight * (likely - self.likely)
        self.since += 1
        if self.score > self.best + 1e-3 * abs(self.best) or self.here == 1:
            self.best, self.since = self.score, 0

    def ended(self, steps: int, settings: Climb) -> bool:
        """Whether it has taken its steps at this size, or has climbed enough."""
        if self.here >= steps:
            return True
        known = settings.enough is not None and self.own is not None and self.here >= _MEMORY
        if known and self.likely >= (settings.enough or 0):
            return True
        # Heats are compared after as many steps.
        return self.decay and settings.patience is not None and self.since >= settings.patience


@dataclass
class _Pool:
    """The rows that are seen together, at one size."""

    parameterisation: Parameterisation
    steps: int
    room: int
    members: list[_Member] = field(default_factory=list)
    drawn: Tensor = field(default_factory=lambda: torch.empty(0))
    first: Tensor = field(default_factory=lambda: torch.empty(0))
    second: Tensor = field(default_factory=lambda: torch.empty(0))
    waiting: deque[list[tuple[_Member, Tensor]]] = field(default_factory=deque)

    def fill(self) -> None:
        """Let waiting rows in while there is room, those of one unit together."""
        coming: list[tuple[_Member, Tensor]] = []
        while self.waiting:
            inside = len(self.members) + len(coming)
            if inside and inside + len(self.waiting[0]) > self.room:
                break
            coming += self.waiting.popleft()
        if coming:
            drawn = torch.stack([one for _, one in coming])
            self.members += [member for member, _ in coming]
            if len(self.drawn):
                blank = torch.zeros_like(drawn)
                self.drawn = torch.cat([self.drawn, drawn])
                self.first, self.second = torch.cat([self.first, blank]), torch.cat([self.second, blank])
            else:
                self.drawn, self.first, self.second = drawn, torch.zeros_like(drawn), torch.zeros_like(drawn)

    @property
    def full(self) -> bool:
        return len(self.members) >= self.room or bool(self.waiting)

    def let_go(self, leaving: list[bool]) -> list[tuple[_Member, Tensor]]:
        """Take out the rows that leave."""
        if not any(leaving):
            return []
        # Copies: a view would keep all its neighbours in memory for as long as it waits.
        gone = [(m, self.drawn[i].clone()) for i, m in enumerate(self.members) if leaving[i]]
        keep = torch.tensor([i for i, out in enumerate(leaving) if not out], dtype=torch.long)
        self.members = [m for i, m in enumerate(self.members) if not leaving[i]]
        keep = keep.to(self.drawn.device)
        self.drawn, self.first, self.second = self.drawn[keep], self.first[keep], self.second[keep]
        return gone


class _Climber:
    """What all rows of a run share."""

    def __init__(self, model: nn.Module, settings: Climb, prior: Prior, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.head = model.head if isinstance(model, Classifier) else "softmax"
        self.robustness = ROBUSTNESS[settings.robustness]
        self.penalties = [
            (weight, penalty)
            for weight, penalty in (
                (settings.total_variation, regularisers.total_variation),
                (settings.high_frequency, regularisers.high_frequency),
                (settings.l1, regularisers.l1),
                (settings.l2, regularisers.l2),
            )
            if weight
        ]
        self.behind: dict[tuple[int, int], Tensor] = {}
        self.prior = prior
        self.features = _feature_layer(model, prior.size) if settings.diversity else None

    def backdrop(self, pool: _Pool) -> Tensor:
        """What each row with opacity is shown before in its next step."""
        size = pool.parameterisation.size
        if size not in self.behind:
            prior = self.prior.resized(size).to(self.device)
            self.behind[size] = torch.cat(
                [backgrounds(prior, row_generator("background", k)) for k in range(_BACKGROUNDS)]
            )
        turn = [(member.taken + member.row.seed) % _BACKGROUNDS for member in pool.members]
        return self.behind[size][turn]

    def step(self, pool: _Pool, activations: Mapping[str, Tensor]) -> list[bool]:
        """One step of all rows of a pool; which of them have ended."""
        settings, members = self.settings, pool.members
        drawn = pool.drawn.requires_grad_()
        pictures = pool.parameterisation.render(drawn)
        images = pictures.detach().requires_grad_()
        draws = torch.stack([m.moves[m.taken] for m in members]).to(self.device)
        shown = composite(images, self.backdrop(pool)) if settings.alpha else images
        seen = move(shown, draws, self.robustness).contiguous(memory_format=torch.channels_last)
        reduced = settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext():
            output = scores(self.model(seen))
        objectives = [m.row.objective for m in members]
        values = evaluate(objectives, output, activations, head=self.head)
        climbed = values
        if self.features is not None:
            names = {text: i for i, text in enumerate(dict.fromkeys(map(str, objectives)))}
            groups = torch.tensor([names[str(o)] for o in objectives], device=self.device)
            alike = regularisers.diversity(activations[self.features], groups)
            climbed = values - settings.diversity * values.detach().abs() * alike
        (gradient,) = (
            torch.autograd.grad(climbed.sum(), images, allow_unused=True)
            if climbed.requires_grad
            else (None,)
        )
        if gradient is None or not torch.isfinite(gradient).all():
            raise ModelError(
                "the gradient of an objective is NaN or does not reach the input; "
                "look for argmax, rounding, detach or a division by zero inside the model"
            )
        gradient = self._restrained(gradient, images)
        (slope,) = torch.autograd.grad(pictures, drawn, gradient)
        pool.drawn = drawn.detach()
        self._adam(pool, slope)
        likely = self._likely(output.detach().float(), members)
        for member, value, share in zip(members, values.tolist(), likely, strict=True):
            member.note(value, share)
        return [member.ended(pool.steps, settings) for member in members]

    def _restrained(self, gradient: Tensor, images: Tensor) -> Tensor:
        """The gradient, turned against each penalty as strongly as the picture asks for."""
        settings = self.settings
        strength = gradient.flatten(1).norm(dim=1)
        colours = images[:, :-1] if settings.alpha else images
        for weight, penalty in self.penalties:
            cost = penalty(colours)
            (against,) = torch.autograd.grad(cost.sum(), images)
            size = against.flatten(1).norm(dim=1).clamp_min(1e-12)
            gradient = gradient - (weight * cost.detach() * strength / size).view(-1, 1, 1, 1) * against
        if settings.blur:
            gradient = regularisers.blur(gradient, settings.blur)
        return gradient

    def _adam(self, pool: _Pool, slope: Tensor) -> None:
        """Adam (Kingma and Ba 2015, arXiv 1412.6980), upwards, each row at a step of its own."""
        rate = self.settings.learning_rate or pool.parameterisation.learning_rate
        falling = [
            0.5 * (1 + math.cos(math.pi * m.taken / m.total)) if m.decay else 1.0 for m in pool.members
        ]
        steps = [m.here + 1 for m in pool.members]
        pool.first.lerp_(slope, 1 - _BETAS[0])
        pool.second.mul_(_BETAS[1]).addcmul_(slope, slope, value=1 - _BETAS[1])
        ahead = torch.tensor([rate * f / (1 - _BETAS[0] ** t) for f, t in zip(falling, steps, strict=True)])
        spread = torch.tensor([(1 - _BETAS[1] ** t) ** 0.5 for t in steps])
        shape = (-1, *[1] * (slope.dim() - 1))
        ahead, spread = (one.to(self.device).view(shape) for one in (ahead, spread))
        pool.drawn.add_(ahead * pool.first / (pool.second.sqrt() / spread + 1e-8))

    def _likely(self, output: Tensor, members: Sequence[_Member]) -> list[float | None]:
        if self.settings.enough is None or output.dim() != 2:
            return [None] * len(members)
        shares = output.sigmoid() if self.head == "multilabel" else output.softmax(1)
        return [None if m.own is None else float(shares[i, m.own]) for i, m in enumerate(members)]


def _feature_layer(model: nn.Module, size: tuple[int, int]) -> str:
    """The last layer that still has places, whose features say what is where."""
    found = [one.name for one in layers(model, size) if one.output_shape and len(one.output_shape) >= 2]
    if not found:
        raise ModelError("the model has no layer with places, whose features `diversity` could push apart")
    return found[-1]


def climb(
    model: nn.Module,
    rows: Sequence[Row],
    prior: Prior,
    settings: Climb | None = None,
    *,
    start: Tensor | None = None,
    batch: int | None = None,
    finished: Callable[[int, Climbed], None],
    progress: Progress | None = None,
) -> None:
    """Make a picture for each row.

    Parameters
    ----------
    model
        Images (N, C, H, W) in [0, 1] to logits (N, K) or dense scores (N, K, h, w); left as it was found,
        after an error and Ctrl-C too.
    rows
        What to make.
    prior
        Statistics of the data, which also give size and channels.
    start
        A picture (C, H, W) in [0, 1] or uint8 that every row starts from; None: noise.
    batch
        Rows at a time, None: as many as suit the device. Results do not depend on it beyond rounding.
    finished
        Told of each row as it leaves: its place in `rows`, and what became of it.
    progress
        Told of forward and backward passes done, in images, and of how many there will be at most.

    Raises
    ------
    ModelError
        If an objective's gradient is NaN or does not reach the input.
    """
    settings = settings or MACO
    device = next(model.parameters(), prior.mean).device
    whole = parameterise(prior.to(device), settings)
    climber = _Climber(model, settings, prior, device)
    wanted = {name for row in rows for name in row.objective.layers}
    if climber.features is not None:
        wanted.add(climber.features)
    heats = settings.starts * settings.heat if settings.starts > 1 and start is None else 0
    total, done = len(rows) * (heats + settings.steps), 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, total)

    with evaluating(model), torch.enable_grad():
        stages = sizes(model, whole, settings, device, [row.objective for row in rows])
        pools = [
            _Pool(
                whole.resized(size), steps, batch or batch_size(size, device, gradients=True)
            )
            for size, steps in stages
        ]  # fmt: skip
        units = _units(rows, together=bool(settings.diversity))
        with recording(model, wanted) as activations:

            def run(pool: _Pool) -> list[tuple[_Member, Tensor]]:
                pool.fill()
                ended = climber.step(pool, activations)
                tick(len(pool.members))
                if settings.diversity:
                    # A unit stays together until the last of its rows has ended.
                    names = [str(member.row.objective) for member in pool.members]
                    staying = {name for name, out in zip(names, ended, strict=True) if not out}
                    ended = [name not in staying for name in names]
                return pool.let_go(ended)

            def enter() -> None:
                """Draw the next unit, after its heats, and let it wait for a place."""
                unit = units.popleft()
                pools[0].waiting.append([_begin(climber, i, rows[i], pools[0], start, run) for i in unit])

            while True:
                while units and len(pools[0].members) + sum(map(len, pools[0].waiting)) < pools[0].room:
                    enter()
                for pool in pools:
                    pool.fill()
                busy = [i for i, pool in enumerate(pools) if pool.members]
                if not busy:
                    break
                # The deepest full batch, so that few rows are kept waiting on the way; else what fills one.
                chosen = next((i for i in reversed(busy) if pools[i].full), busy[0])
                gone = run(pools[chosen])
                if chosen + 1 == len(pools):
                    for member, drawn in gone:
                        picture = pools[chosen].parameterisation.render(drawn[None])[0]
                        image = (picture * 255).round().to(torch.uint8).cpu()
                        finished(member.index, Climbed(image, member.taken, member.score))
                else:
                    _grow(gone, pools[chosen], pools[chosen + 1], together=bool(settings.diversity))


def _units(rows: Sequence[Row], *, together: bool) -> deque[list[int]]:
    """Places of rows that enter and leave together: each alone, or the seeds of one objective."""
    units: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        units.setdefault(str(row.objective) if together else i, []).append(i)
    return deque(units.values())


def _begin(
    climber: _Climber,
    index: int,
    row: Row,
    pool: _Pool,
    start: Tensor | None,
    run: Callable[[_Pool], list[tuple[_Member, Tensor]]],
) -> tuple[_Member, Tensor]:
    """A row at its start: of several draws the one that climbed highest in a few steps."""
    settings, parameterisation = climber.settings, pool.parameterisation
    generator = row_generator("row", str(row.objective), row.seed)
    own = row.objective.target
    if start is not None:
        resized = torch.nn.functional.interpolate(
            (start.float() / 255 if start.dtype == torch.uint8 else start)[None],
            size=parameterisation.size, mode="bilinear", antialias=True,
        )  # fmt: skip
        drawn = parameterisation.encode(resized.to(climber.device))
    else:
        drawn = parameterisation.draw(generator, settings.starts).to(climber.device)
        if settings.starts > 1:
            heat = torch.stack([moves(generator, settings.heat) for _ in range(settings.starts)])
            trial = _Pool(parameterisation, settings.heat, pool.room)
            for i in range(settings.starts):
                member = _Member(i, row, heat[i], generator, settings.heat, None, decay=False)
                trial.waiting.append([(member, drawn[i])])
            ran: list[tuple[_Member, Tensor]] = []
            while trial.waiting or trial.members:
                ran += run(trial)
            drawn = max(ran, key=lambda one: (one[0].score, -one[0].index))[1][None]
    member = _Member(index, row, moves(generator, settings.steps), generator, settings.steps, own)
    return member, drawn[0]


def _grow(gone: list[tuple[_Member, Tensor]], small: _Pool, large: _Pool, *, together: bool) -> None:
    """Carry rows over to the next size."""
    grown = []
    for member, drawn in gone:
        bigger = small.parameterisation.grown(drawn[None], large.parameterisation.size, member.generator)[0]
        grown.append((replace(member, here=0, score=math.nan, likely=0.0, best=-math.inf, since=0), bigger))
    if together:
        by_objective: dict[str, list[tuple[_Member, Tensor]]] = {}
        for one in grown:
            by_objective.setdefault(str(one[0].row.objective), []).append(one)
        large.waiting.extend(by_objective.values())
    else:
        large.waiting.extend([one] for one in grown)
