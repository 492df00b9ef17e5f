"""The optimiser: many objectives climb side by side, each a row of one batch.

A row is drawn, rendered, moved, seen by the model, and follows its own gradient with Adam. It grows: most of
its steps are taken on a small picture, where they cost least, and what it shows there is carried over to the
next size. Rows that have climbed enough leave and waiting rows take their place, so that a thousand
objectives need the memory of one batch. Whatever is random about a row comes from a generator seeded by what
the row is, and the model sees rows a fixed number at a time, so that a row's result does not depend on its
neighbours, on the batch or on the order; with `diversity`, which is about the seeds of one objective, these
stay together.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.errors import ModelError, ParamsError
from candling.models import Classifier, batch_size, evaluating, layers, recording, scores
from candling.models.memory import keeping_memory
from candling.models.running import answer
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
from candling.vision.priors import Prior, steeper
from candling.vision.transforms import ROBUSTNESS, move, moves

__all__ = [
    "FOURIER",
    "MACO",
    "Climb",
    "Climbed",
    "Row",
    "climb",
    "parameterise",
    "row_generator",
    "seen_together",
    "sizes",
]

Progress = Callable[[int, int], None]

_PARAMETERISATIONS: dict[str, Callable[[Prior, float, bool], Parameterisation]] = {
    "fourier": Fourier,
    "maco": Maco,
    "pixels": Pixels,
}
_WEIGHTS = ("total_variation", "high_frequency", "l1", "l2", "blur", "diversity")
_BETAS = (0.9, 0.99)
_SMALLEST = 64  # pixels of the shorter side: a picture that is smaller has nothing to gain from growing
_STRIDES = (16, 32)  # of which the sides of smaller pictures are multiples
_LARGE = 128**2  # pixels of which a processor's cache holds four pictures' activations, and not eight
_MEMORY = 8  # steps over which a score is averaged
_BACKGROUNDS = 8  # that a picture with opacity is shown before, in turn


@dataclass(frozen=True)
class Climb:
    """How to climb; `FOURIER`, which is the default, and `MACO` are what works for each parameterisation.

    Each row starts from the one of `starts` draws that climbed highest in `heat` steps and climbs for
    `steps` more. A network that knows few pictures answers many with no unit at all, and from there no
    gradient leads anywhere; a climb that got away is seen to within a few steps.

    parameterisation, contrast, alpha: see `candling.vision.parameterisations`.
    fall: what is added to the exponent by which the prior's magnitudes fall with frequency. What falls
    faster shows shapes before textures.
    learning_rate: of Adam, in the parameterisation's units; None: what suits it and the number of steps, so
    that few steps lead as far as many. At the final size it falls to 0 as a cosine.
    limit: contrast that rows are held to, in that of the prior's pictures; None: it is left to them. What
    saturates looks like nothing and has no gradient.
    robustness: a name in `candling.vision.transforms.ROBUSTNESS`, ``none`` to ``xl``.
    growth: sizes in parts of the final side, and parts of the steps taken there; by default 96 steps cost as
    much as 35 at 224 px. A row that starts from a picture, or whose objective is at a place, takes all of
    them at the final size.
    total_variation, high_frequency, l1, l2: how strongly the gradient is turned against each penalty: at 1,
    a picture with as much of it as a photograph has (penalty 1) is pulled back as strongly as up.
    blur: of the gradient, as a standard deviation in parts of the longer side.
    seeds, first: how many pictures of an objective, and the number of the first, which seeds it.
    diversity: how strongly the seeds of one objective are pushed apart, in parts of the objective's value.
    enough: a row leaves when its class has this probability under transforms just drawn, averaged over the
    last steps; None: no row does. patience: a row leaves after so many steps without a better average.
    precision: of the model's arithmetic; the picture's own is always float32. bfloat16 is for processors that
    compute in it (without AVX-512 or AMX it is ten times slower); a picture becomes another one, and the mean
    probability under held-out transforms stays the same to 0.01.
    """

    parameterisation: Literal["fourier", "maco", "pixels"] = "fourier"
    seeds: int = 4
    first: int = 0
    steps: int = 96
    starts: int = 1
    heat: int = 8
    learning_rate: float | None = None
    contrast: float = 0.01
    fall: float = 0.35
    limit: float | None = 1.4
    alpha: bool = False
    robustness: str = "m"
    growth: tuple[tuple[float, float], ...] = ((0.43, 0.6), (0.65, 0.25), (1.0, 0.15))
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
        for name, low in (
            ("seeds", 1),
            ("first", 0),
            ("steps", 1),
            ("starts", 1),
            ("heat", 1),
            ("patience", 1),
        ):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= low or (value is None and name == "patience")):
                raise ParamsError(f"{name} is {value!r}; it must be a whole number from {low}")
        optional = ("learning_rate", "limit", "enough")
        for name in (*optional, "contrast", *_WEIGHTS):
            value = getattr(self, name)
            if value is None and name in optional:
                continue
            number = isinstance(value, int | float) and math.isfinite(value)
            if not number or value < 0 or (name in optional and value == 0):
                least = "above 0" if name in optional else "from 0"
                raise ParamsError(f"{name} is {value!r}; it must be a number {least}")
        if self.enough is not None and self.enough > 1:
            raise ParamsError(f"enough is {self.enough}; it is a probability, at most 1")
        if not (isinstance(self.fall, int | float) and math.isfinite(self.fall)):
            raise ParamsError(f"fall is {self.fall!r}; it must be a number")
        if not all(isinstance(one, tuple | list) and len(one) == 2 for one in self.growth):
            raise ParamsError(f"growth {self.growth}: write pairs of a size and a part of the steps")
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


FOURIER = Climb()
MACO = Climb(
    parameterisation="maco", seeds=8, steps=160, starts=8, contrast=0.7, fall=0.0, limit=None,
    robustness="s", growth=((1.0, 1.0),),
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
    fallen = steeper(prior, settings.fall) if settings.fall else prior
    return _PARAMETERISATIONS[settings.parameterisation](fallen, settings.contrast, settings.alpha)


def _scores(said: Any, seen: Tensor, objectives: Sequence[Objective]) -> Tensor:
    """The scores in what a model returned; what it saw, where nothing is to be read from them."""
    wanted = any(not term.layer for one in objectives for _, term in one.terms)
    return scores(said) if wanted else seen


def _takes(model: nn.Module, shape: tuple[int, int, int], device: torch.device) -> bool:
    """Whether the model answers pictures of this shape (C, H, W)."""
    try:
        with torch.no_grad():
            answer(model, torch.full((1, *shape), 0.5, device=device))
    except ModelError:
        return False  # position embeddings, or too small for the strides: it stays with its own size
    return True


def _taken(
    model: nn.Module, parameterisation: Parameterisation, part: float, device: torch.device
) -> tuple[int, int] | None:
    """About this part of the final size, so that it suits the model's strides; None if none does."""
    final = parameterisation.size
    for stride in _STRIDES:
        height, width = (stride * max(1, round(side * part / stride)) for side in final)
        smaller = height < final[0] and width < final[1]
        if smaller and _takes(model, (parameterisation.channels, height, width), device):
            return height, width
    return None


def sizes(
    model: nn.Module, parameterisation: Parameterisation, settings: Climb, device: torch.device
) -> list[tuple[tuple[int, int], int]]:
    """Sizes that the model takes, which pictures grow through, each with its steps."""
    final = parameterisation.size
    found: dict[tuple[int, int], float] = {}
    waiting = 0.0
    for part, share in settings.growth:
        grow = max(part, min(1.0, _SMALLEST / min(final)))
        size = final if grow == 1 else _taken(model, parameterisation, grow, device)
        if size is None:
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
    """A row on its way: its moves to come, steps taken in all and at this size, and its average score.

    `heat` is the number of its draw as long as it is on trial.
    """

    index: int
    row: Row
    moves: Tensor
    generator: torch.Generator
    own: int | None
    heat: int | None = None
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
        return self.heat is None and settings.patience is not None and self.since >= settings.patience


@dataclass
class _Pool:
    """The rows that climb together: on trial, or at one size, which may be the final one.

    together: as many as the model sees in one pass; where there are fewer, blanks are seen with them.
    """

    parameterisation: Parameterisation
    steps: int
    room: int
    together: int
    trial: bool = False
    final: bool = False
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

    @property
    def load(self) -> int:
        """Rows inside and waiting."""
        return len(self.members) + sum(map(len, self.waiting))

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


@dataclass(frozen=True)
class _Answer:
    """Of some rows: their objectives' values, what is climbed, and the model's output."""

    values: Tensor
    climbed: Tensor
    output: Tensor


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
        self.limit = settings.limit
        self.features = _feature_layer(model, prior.size, prior.channels) if settings.diversity else None

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
        images = pictures.detach()
        draws = torch.stack([m.moves[m.taken] for m in members]).to(self.device)
        behind = self.backdrop(pool) if settings.alpha else None
        gradients, values, likely = [], [], []
        for rows in self._seen_together(pool):
            some = images[rows].requires_grad_()
            shown = some if behind is None else composite(some, behind[rows])
            seen = move(shown, draws[rows], self.robustness)
            found = self._ask(seen, members[rows], pool, activations)
            gradients.append(self._gradient(found.climbed, some, members[rows]))
            values += found.values.tolist()
            likely += self._likely(found.output, members[rows])
        gradient = torch.cat(gradients) if len(gradients) > 1 else gradients[0]
        if self.penalties or settings.blur:
            gradient = self._restrained(gradient, images)
        (slope,) = torch.autograd.grad(pictures, drawn, gradient)
        pool.drawn = drawn.detach()
        self._adam(pool, slope)
        for member, value, share in zip(members, values, likely, strict=True):
            member.note(value, share)
        return [member.ended(pool.steps, settings) for member in members]

    def _seen_together(self, pool: _Pool) -> list[slice]:
        """Rows that the model sees in one pass: always as many, or the seeds of one objective.

        A network's sums are rounded otherwise in batches of another size, and a climb makes more of it.
        """
        if self.features is None or pool.trial:
            return [slice(i, i + pool.together) for i in range(0, len(pool.members), pool.together)]
        ends = list(itertools.accumulate(
            len(list(seeds)) for _, seeds in itertools.groupby(pool.members, lambda m: str(m.row.objective))
        ))  # fmt: skip
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _ask(
        self, seen: Tensor, members: Sequence[_Member], pool: _Pool, activations: Mapping[str, Tensor]
    ) -> _Answer:
        """What the model says of some rows."""
        settings, count = self.settings, len(members)
        blanks = 0 if self.features is not None and not pool.trial else pool.together - count
        filled = F.pad(seen, (0, 0, 0, 0, 0, 0, 0, blanks), value=0.5) if blanks else seen
        objectives = [m.row.objective for m in members]
        reduced = settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext():
            said = self.model(filled.contiguous(memory_format=torch.channels_last))
            output = _scores(said, filled, objectives)[:count]
        read = {name: found[:count] for name, found in activations.items()}
        values = climbed = evaluate(objectives, output, read, head=self.head)
        if self.features is not None and not pool.trial:
            alike = regularisers.diversity(
                read[self.features], torch.zeros(count, dtype=torch.long, device=self.device)
            )
            climbed = values - settings.diversity * values.detach().abs() * alike
        return _Answer(values.detach(), climbed, output.detach().float())

    def _gradient(self, climbed: Tensor, images: Tensor, members: Sequence[_Member]) -> Tensor:
        (gradient,) = (
            torch.autograd.grad(climbed.sum(), images, allow_unused=True)
            if climbed.requires_grad
            else (None,)
        )
        if gradient is None:
            bad = list(members)
        else:
            # What is NaN or infinite anywhere is so in the sum, which is the quickest to be had.
            finite = torch.isfinite(gradient.sum((1, 2, 3))).tolist()
            bad = [member for member, good in zip(members, finite, strict=True) if not good]
        if gradient is None or bad:
            row = bad[0].row
            raise ModelError(
                f"the gradient of {row.objective} (seed {row.seed}, step {bad[0].taken + 1}) is NaN or does "
                "not reach the input; look for argmax, rounding, detach or a division by zero in the model"
            )
        return gradient

    def _restrained(self, gradient: Tensor, images: Tensor) -> Tensor:
        """The gradient, turned against each penalty as strongly as the picture asks for."""
        settings = self.settings
        strength = gradient.flatten(1).norm(dim=1)
        images = images.detach().requires_grad_(bool(self.penalties))
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
        rate = self.settings.learning_rate or pool.parameterisation.learning_rate(self.settings.steps)
        falling = [0.5 * (1 + math.cos(math.pi * m.here / pool.steps)) for m in pool.members]
        falling = falling if pool.final else [1.0] * len(pool.members)
        steps = [m.here + 1 for m in pool.members]
        pool.first.lerp_(slope, 1 - _BETAS[0])
        pool.second.mul_(_BETAS[1]).addcmul_(slope, slope, value=1 - _BETAS[1])
        ahead = torch.tensor([rate * f / (1 - _BETAS[0] ** t) for f, t in zip(falling, steps, strict=True)])
        spread = torch.tensor([(1 - _BETAS[1] ** t) ** 0.5 for t in steps])
        shape = (-1, *[1] * (slope.dim() - 1))
        ahead, spread = (one.to(self.device).view(shape) for one in (ahead, spread))
        pool.drawn.addcdiv_(ahead * pool.first, pool.second.sqrt().div_(spread).add_(1e-8))
        if self.limit is not None:
            pool.drawn = pool.parameterisation.held(pool.drawn, self.limit)

    def _likely(self, output: Tensor, members: Sequence[_Member]) -> list[float | None]:
        # Of dense scores, and of a single one by softmax, no probability says how far a row has come.
        single = output.dim() == 2 and output.shape[1] == 1 and self.head != "multilabel"
        if self.settings.enough is None or output.dim() != 2 or single:
            return [None] * len(members)
        shares = output.sigmoid() if self.head == "multilabel" else output.softmax(1)
        return [None if m.own is None else float(shares[i, m.own]) for i, m in enumerate(members)]


def _feature_layer(model: nn.Module, size: tuple[int, int], channels: int) -> str:
    """The last layer that still has places, whose features say what is where."""
    shapes = {one.name: one.output_shape or () for one in layers(model, size, channels)}
    found = [name for name, shape in shapes.items() if len(shape) >= 2]
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
        A picture (C, H, W) in [0, 1] or uint8 that every row starts from, at its full size from the first
        step; None: noise.
    batch
        Rows at a time, None: as many as suit the device. Results do not depend on it: the model sees rows in
        passes of a fixed number (4 on a processor, 8 of pictures below 128 px; with `diversity` the seeds of
        an objective), filled up with grey.
    finished
        Told of each row as it leaves: its place in `rows`, and what became of it.
    progress
        Told of forward and backward passes done, in images, and of how many there will be at most.

    Raises
    ------
    ModelError
        If an objective's gradient is NaN or does not reach the input.
    """
    settings = settings or FOURIER
    device = next(model.parameters(), prior.mean).device
    whole = parameterise(prior.to(device), settings)
    climber = _Climber(model, settings, prior, device)
    if start is not None and settings.limit is not None:
        # A picture to start from keeps the contrast that it has.
        own = whole.strength(_encoded(start, whole, device))
        climber.limit = None if own is None else max(settings.limit, float(own))
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

    with keeping_memory(), evaluating(model), torch.enable_grad():
        grown = sizes(model, whole, settings, device)
        # What is at a place of a small picture is elsewhere in a larger one, and a picture to start from
        # loses what a small one cannot show.
        fixed = [start is not None or row.objective.placed for row in rows]
        with recording(model, wanted) as activations:
            for held, stages in ((False, grown), (True, [(whole.size, settings.steps)])):
                some = [i for i, row in enumerate(rows) if fixed[i] == held]
                pools = _pools(whole, settings, stages, device, batch, trial=bool(heats))
                _run(climber, activations, pools, rows, some, start, finished, tick)


def _pools(
    whole: Parameterisation,
    settings: Climb,
    stages: Sequence[tuple[tuple[int, int], int]],
    device: torch.device,
    batch: int | None,
    *,
    trial: bool,
) -> list[_Pool]:
    """Where rows are from their start to their end, one after another."""
    pools: list[_Pool] = []
    for size, steps in stages:
        seen = seen_together(size, device)
        room = math.ceil((batch or batch_size(size, device, gradients=True)) / seen) * seen
        pools.append(_Pool(whole.resized(size), steps, room, seen, final=size == whole.size))
    if trial:
        first = pools[0]
        pools.insert(0, _Pool(first.parameterisation, settings.heat, first.room, first.together, trial=True))
    return pools


def _run(
    climber: _Climber,
    activations: Mapping[str, Tensor],
    pools: list[_Pool],
    rows: Sequence[Row],
    some: Sequence[int],
    start: Tensor | None,
    finished: Callable[[int, Climbed], None],
    tick: Callable[[int], None],
) -> None:
    """Let some of the rows climb through the pools."""
    entrance, together = pools[0], bool(climber.settings.diversity)
    units = _units(rows, some, together=together)
    trials = _Trials(climber.settings.starts)
    while True:
        while units and entrance.load < entrance.room:
            unit = [_begin(climber, i, rows[i], entrance, start) for i in units.popleft()]
            if entrance.trial:
                trials.enter(unit, entrance)
            else:
                entrance.waiting.append([(member, drawn[0]) for member, drawn, _ in unit])
        for pool in pools:
            pool.fill()
        busy = [i for i, pool in enumerate(pools) if pool.members]
        if not busy:
            break
        # The deepest full batch, so that few rows are kept waiting on the way; else what fills one.
        place = next((i for i in reversed(busy) if pools[i].full), busy[0])
        pool = pools[place]
        ended = climber.step(pool, activations)
        tick(len(pool.members))
        if together and not pool.trial:
            # A unit stays together until the last of its rows has ended.
            names = [str(member.row.objective) for member in pool.members]
            staying = {name for name, out in zip(names, ended, strict=True) if not out}
            ended = [name not in staying for name in names]
        gone = pool.let_go(ended)
        if pool.trial:
            pools[1].waiting.extend(trials.leave(gone))
        elif pool.final:
            for member, drawn in gone:
                picture = pool.parameterisation.render(drawn[None])[0]
                image = (picture * 255).round().to(torch.uint8).cpu()
                finished(member.index, Climbed(image, member.taken, member.score))
        else:
            _grow(gone, pool, pools[place + 1], together=together)


def seen_together(size: tuple[int, int], device: torch.device) -> int:
    """Rows that the model sees in one pass, blanks among them where fewer climb.

    Few, so that a row alone is not costly; so many that a pass is not.
    """
    if device.type != "cpu":
        return 16
    return 4 if size[0] * size[1] >= _LARGE else 8


def _units(rows: Sequence[Row], some: Sequence[int], *, together: bool) -> deque[list[int]]:
    """Places of rows that enter and leave together: each alone, or the seeds of one objective."""
    units: dict[object, list[int]] = {}
    for i in some:
        units.setdefault(str(rows[i].objective) if together else i, []).append(i)
    return deque(units.values())


def _begin(
    climber: _Climber, index: int, row: Row, pool: _Pool, start: Tensor | None
) -> tuple[_Member, Tensor, list[Tensor]]:
    """A row at its start: its draws (starts, …), or what a picture encodes to, and the moves of its heats."""
    settings, parameterisation = climber.settings, pool.parameterisation
    generator = row_generator("row", str(row.objective), row.seed)
    if start is not None:
        drawn = _encoded(start, parameterisation, climber.device)
    else:
        drawn = parameterisation.draw(generator, settings.starts).to(climber.device)
    heats = [moves(generator, settings.heat) for _ in drawn] if pool.trial else []
    climbing = moves(generator, settings.steps)
    return _Member(index, row, climbing, generator, row.objective.target), drawn, heats


def _encoded(start: Tensor, parameterisation: Parameterisation, device: torch.device) -> Tensor:
    """What renders to a picture (C, H, W), brought to the size of the parameterisation: (1, …)."""
    unit = start.float() / 255 if start.dtype == torch.uint8 else start
    resized = F.interpolate(unit[None], size=parameterisation.size, mode="bilinear", antialias=True)
    return parameterisation.encode(resized.to(device))


class _Trials:
    """Heats: of several draws of a row the one that climbs highest in a few steps is its start."""

    def __init__(self, starts: int) -> None:
        self.starts = starts
        self.units: dict[int, list[_Member]] = {}  # by each of their rows
        self.ran: dict[int, list[tuple[_Member, Tensor]]] = {}

    def enter(self, unit: list[tuple[_Member, Tensor, list[Tensor]]], pool: _Pool) -> None:
        """Let the draws of a unit's rows wait for their heats."""
        members = [member for member, _, _ in unit]
        for member, drawn, heats in unit:
            self.units[member.index], self.ran[member.index] = members, []
            for heat, (one, moved) in enumerate(zip(drawn, heats, strict=True)):
                pool.waiting.append([(replace(member, moves=moved, own=None, heat=heat), one)])

    def leave(self, gone: list[tuple[_Member, Tensor]]) -> list[list[tuple[_Member, Tensor]]]:
        """Units of which all heats have ended, each row with its best draw."""
        whole = []
        for trial, drawn in gone:
            self.ran[trial.index].append((trial, drawn))
            unit = self.units[trial.index]
            if all(len(self.ran[member.index]) == self.starts for member in unit):
                whole.append([(member, self._best(member.index)) for member in unit])
                for member in unit:
                    del self.ran[member.index], self.units[member.index]
        return whole

    def _best(self, index: int) -> Tensor:
        return max(self.ran[index], key=lambda one: (one[0].score, -(one[0].heat or 0)))[1]


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
