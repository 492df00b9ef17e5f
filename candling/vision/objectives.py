"""What a feature visualization climbs: logits, neurons, channels, directions, tokens, and sums of them.

`evaluate` gives one value for each image of a batch, by an objective of its own each, so that many
visualizations can be rows of one batch. Kinds after Olah, Mordvintsev and Schubert, "Feature Visualization",
Distill 2017, sections "Optimization Objectives" and "Interaction between Neurons".
"""

from __future__ import annotations

import abc
import hashlib
import math
import operator
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from candling.data.labels import place_of
from candling.errors import DataError, ModelError, ParamsError
from candling.models.heads import scores
from candling.models.reading import nearest, recording
from candling.models.running import answer, evaluating
from candling.models.spec import Head

__all__ = [
    "Objective",
    "Term",
    "channel",
    "check",
    "direction",
    "evaluate",
    "head",
    "hybrid",
    "layer",
    "logit",
    "margin",
    "neuron",
    "parse",
    "place_named",
    "probability",
    "region",
    "token",
]


@dataclass(frozen=True)
class Term(abc.ABC):
    """One thing to climb, read from what `layer` returns, or from the model's output where that is empty."""

    layer: str

    @abc.abstractmethod
    def fit(self, shape: Sequence[int]) -> None:
        """See that it can be read from a tensor (R, …) of this shape; ModelError if not."""

    @classmethod
    @abc.abstractmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        """Values (n,) of n terms of one group, each from its row (n,) of what was found (R, …)."""

    @property
    def placed(self) -> bool:
        """Whether it is at one place of the picture, so that it is another thing in a smaller one."""
        return False

    @property
    def group(self) -> tuple[Hashable, ...]:
        """Terms that `read` takes together have this in common."""
        return type(self), self.layer

    def _within(self, index: int, count: int, what: str) -> None:
        if not 0 <= index < count:
            where = self.layer or "the model"
            raise ModelError(f"{where} has {count} {what}, 0 to {count - 1}; {index} is none of them")

    def _channels(self, shape: Sequence[int]) -> int:
        if len(shape) not in (2, 3, 4):
            self._misfit(shape, "(channels, height, width), (tokens, units) or (units)")
        return shape[2 if len(shape) == 3 else 1]

    def _misfit(self, shape: Sequence[int], needs: str) -> NoReturn:
        where = self.layer or "the model"
        raise ModelError(f"{where} returns {tuple(shape[1:])} for an image; {self} needs {needs}")


# --- terms of the model's output (R, K) or (R, K, h, w) -----------------------------------------------


@dataclass(frozen=True)
class Logit(Term):
    """A class's logit; the mean over places of a dense output."""

    index: int

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}[{self.index}]"

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) not in (2, 4):
            self._misfit(shape, "scores of classes, (classes) or (classes, height, width)")
        self._within(self.index, shape[1], "classes")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        return _mean(_pick(found, rows, [term.index for term in terms]))


@dataclass(frozen=True)
class Margin(Logit):
    """A class's logit minus the largest other, at each place of a dense output by itself."""

    def fit(self, shape: Sequence[int]) -> None:
        super().fit(shape)
        if shape[1] < 2:
            self._misfit(shape, "two classes or more")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        classes, every = [term.index for term in terms], _pick(found, rows)
        own = _numbers(classes, found).view(-1, *[1] * (found.dim() - 1)).expand(-1, 1, *found.shape[2:])
        others = every.scatter(1, own, -math.inf).amax(1)
        return _mean(every.gather(1, own)[:, 0] - others)


@dataclass(frozen=True)
class Probability(Logit):
    """The logarithm of a class's probability, at each place of a dense output by itself."""

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        own = _pick(found, rows, [term.index for term in terms])
        if head == "multilabel":
            return _mean(F.logsigmoid(own))
        return _mean(own - _pick(found, rows).logsumexp(1))


@dataclass(frozen=True)
class Region(Logit):
    """A class's logit in a dense output, averaged over the places of a mask (H, W) by its weights."""

    digest: str
    mask: Tensor = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"region[{self.index}, {self.digest}]"

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) != 4:
            self._misfit(shape, "a dense output (classes, height, width)")
        super().fit(shape)

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        size = (found.shape[2], found.shape[3])
        # Areas are averaged, so that no pixel of a mask is lost, however coarse the output.
        resized = {term.digest: F.adaptive_avg_pool2d(term.mask[None], size)[0] for term in terms}
        weights = torch.stack([resized[term.digest] for term in terms]).to(found.device)
        picked = _pick(found, rows, [term.index for term in terms])
        return (picked * weights).sum((1, 2)) / weights.sum((1, 2))


# --- terms of a layer's output (R, C, h, w), (R, tokens, units) or (R, units) --------------------------


@dataclass(frozen=True)
class Neuron(Term):
    """A channel at one place, by default the middle one; a unit where there are no places."""

    index: int
    y: int | None
    x: int | None

    @property
    def placed(self) -> bool:
        return self.y is not None

    def __str__(self) -> str:
        place = "" if self.y is None else f",{self.y},{self.x}"
        return f"{self.layer}.neuron[{self.index}{place}]"

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) != 4 and not (len(shape) == 2 and self.y is None):
            self._misfit(shape, "(channels, height, width); for (tokens, units) see token")
        self._within(self.index, shape[1], "channels")
        if self.y is not None and self.x is not None:
            self._within(self.y, shape[2], "rows")
            self._within(self.x, shape[3], "columns")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        indices = [term.index for term in terms]
        if found.dim() == 2:
            return _pick(found, rows, indices)
        height, width = found.shape[2:]
        y = [height // 2 if term.y is None else term.y for term in terms]
        x = [width // 2 if term.x is None else term.x for term in terms]
        return _pick(found, rows, indices, y, x)


@dataclass(frozen=True)
class Channel(Term):
    """A channel's mean over places; of tokens, a unit's mean over tokens; else a unit."""

    index: int

    def __str__(self) -> str:
        return f"{self.layer}.channel[{self.index}]"

    def fit(self, shape: Sequence[int]) -> None:
        self._within(self.index, self._channels(shape), "channels")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        return _mean(_pick(_channels_second(found), rows, [term.index for term in terms]))


@dataclass(frozen=True)
class Direction(Term):
    """The dot product of the channels with a vector (C,), averaged over places or tokens."""

    digest: str
    vector: Tensor = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.layer}.direction[{self.digest}]"

    def fit(self, shape: Sequence[int]) -> None:
        count = self._channels(shape)
        if count != len(self.vector):
            raise ModelError(f"{self.layer} has {count} channels, and the direction {len(self.vector)}")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        picked = _mean(_pick(_channels_second(found), rows), 2)
        return (picked * torch.stack([term.vector for term in terms]).to(picked)).sum(1)


@dataclass(frozen=True)
class Activity(Term):
    """The mean square of all that a layer returns: DeepDream."""

    def __str__(self) -> str:
        return self.layer

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) < 2:
            self._misfit(shape, "one value or more")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        return _mean(_pick(found, rows).square())


@dataclass(frozen=True)
class Token(Term):
    """A unit of one token, or the mean square of all its units."""

    index: int
    unit: int | None

    def __str__(self) -> str:
        unit = "" if self.unit is None else f".unit[{self.unit}]"
        return f"{self.layer}.token[{self.index}]{unit}"

    @property
    def placed(self) -> bool:
        return self.index > 0  # the first is the class token, where there is one

    @property
    def group(self) -> tuple[Hashable, ...]:
        return *super().group, self.unit is None

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) != 3:
            self._misfit(shape, "(tokens, units)")
        self._within(self.index, shape[1], "tokens")
        if self.unit is not None:
            self._within(self.unit, shape[2], "units")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        tokens, units = [term.index for term in terms], [term.unit for term in terms if term.unit is not None]
        return _pick(found, rows, tokens, units) if units else _mean(_pick(found, rows, tokens).square())


@dataclass(frozen=True)
class AttentionHead(Term):
    """The mean square of one head's units, of heads that lie side by side."""

    index: int
    heads: int

    def __str__(self) -> str:
        return f"{self.layer}.head[{self.index} of {self.heads}]"

    @property
    def group(self) -> tuple[Hashable, ...]:
        return *super().group, self.heads

    def fit(self, shape: Sequence[int]) -> None:
        if len(shape) != 3 or shape[2] % self.heads:
            self._misfit(shape, f"(tokens, units) with units that {self.heads} heads share evenly")

    @classmethod
    def read(cls, terms: Sequence[Self], found: Tensor, rows: Tensor, head: Head) -> Tensor:
        by_head = found.unflatten(2, (terms[0].heads, -1)).transpose(1, 2)
        return _mean(_pick(by_head, rows, [term.index for term in terms]).square())


def _numbers(values: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)


def _pick(found: Tensor, rows: Tensor, *indices: Sequence[int]) -> Tensor:
    """found[rows, *indices], in float32 where it was less."""
    picked = found[(rows, *(_numbers(index, found) for index in indices))]
    return picked.to(torch.promote_types(picked.dtype, torch.float32))


def _channels_second(found: Tensor) -> Tensor:
    """Of (R, C, h, w), (R, tokens, C) or (R, C): (R, C, …)."""
    return found.transpose(1, 2) if found.dim() == 3 else found


def _mean(values: Tensor, first: int = 1) -> Tensor:
    """The mean over all axes from the first on, if there are such."""
    return values.flatten(first).mean(first) if values.dim() > first else values


def _digest(values: Tensor) -> str:
    content = repr(tuple(values.shape)).encode() + values.numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


# --- objectives ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms: what is climbed. Made by `logit`, `channel`, …, or of text by `parse`.

    Objectives add and subtract, and are multiplied by numbers; ``-objective`` is climbed where `objective`
    falls (the antitype). Weights mean what they say: no term is normalised. Equal terms are gathered and all
    sorted, so that equal objectives have equal text.

    Raises
    ------
    ParamsError
        If a weight is not finite, or nothing is left to climb.
    """

    terms: tuple[tuple[float, Term], ...]

    def __post_init__(self) -> None:
        weights: defaultdict[Term, float] = defaultdict(float)
        for weight, term in self.terms:
            weights[term] += float(weight)
        if not all(map(math.isfinite, weights.values())):
            raise ParamsError("a weight of the objective is NaN or infinite; weights are finite numbers")
        left = [(weight, term) for term, weight in weights.items() if weight]
        if not left:
            raise ParamsError("the objective's terms cancel out, so that there is nothing to climb")
        # The model's output first, whose layer is empty.
        left.sort(key=lambda pair: (pair[1].layer, str(pair[1])))
        object.__setattr__(self, "terms", tuple(left))

    @property
    def layers(self) -> frozenset[str]:
        """Paths of the modules whose outputs it needs."""
        return frozenset(term.layer for _, term in self.terms if term.layer)

    @property
    def placed(self) -> bool:
        """Whether any of its terms is at one place of the picture."""
        return any(term.placed for _, term in self.terms)

    @property
    def target(self) -> int | None:
        """The class whose probability says how far it has come, where just one class is climbed."""
        classes = {
            term.index
            for weight, term in self.terms
            if weight > 0 and isinstance(term, Logit | Probability | Region)
        }
        return classes.pop() if len(classes) == 1 else None

    @property
    def classes(self) -> frozenset[int]:
        """Classes whose scores it needs."""
        return frozenset(term.index for _, term in self.terms if isinstance(term, Logit))

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms) if isinstance(other, Objective) else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __neg__(self) -> Objective:
        return self * -1

    def __mul__(self, factor: float) -> Objective:
        if not isinstance(factor, Real):
            return NotImplemented
        return Objective(tuple((weight * float(factor), term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Objective:
        if not isinstance(divisor, Real):
            return NotImplemented
        return Objective(tuple((weight / float(divisor), term) for weight, term in self.terms))

    def __str__(self) -> str:
        """As `parse` reads it; of vectors and masks it has a digest, which cannot be read back."""
        text = ""
        for weight, term in self.terms:
            sign = ("-" if weight < 0 else "") if not text else (" - " if weight < 0 else " + ")
            size = "" if abs(weight) == 1 else f"{repr(abs(weight)).removesuffix('.0')}*"
            text += f"{sign}{size}{term}"
        return text


def _of(term: Term) -> Objective:
    return Objective(((1.0, term),))


def logit(c: int) -> Objective:
    """Class c's logit; of a dense output (N, K, h, w) its mean over places."""
    return _of(Logit("", operator.index(c)))


def margin(c: int) -> Objective:
    """Class c's logit minus the largest other; of a dense output the mean over places."""
    return _of(Margin("", operator.index(c)))


def probability(c: int) -> Objective:
    """The logarithm of class c's probability, by the model's head; of a dense output the mean over places."""
    return _of(Probability("", operator.index(c)))


def region(c: int, mask: Tensor) -> Objective:
    """Class c's logit in a dense output (N, K, h, w), averaged over a mask.

    Parameters
    ----------
    mask
        bool, or float weights from 0, (H, W) of any size: it is resized to (h, w) by areas.

    Raises
    ------
    ParamsError
        If the mask is no such plane, or empty.
    """
    weights = torch.as_tensor(mask).detach().to("cpu", torch.float32, copy=True).contiguous()
    if weights.dim() != 2 or not torch.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ParamsError(
            f"the mask of a region is of shape {tuple(weights.shape)}; it must be (height, width), finite, "
            "nowhere negative and somewhere positive"
        )
    return _of(Region("", operator.index(c), _digest(weights), weights))


def hybrid(classes: Iterable[int]) -> Objective:
    """The sum of several classes' logits, each with weight 1.

    Raises
    ------
    ParamsError
        If there is no class.
    """
    return Objective(tuple((1.0, Logit("", operator.index(c))) for c in classes))


def neuron(layer: str, channel: int, y: int | None = None, x: int | None = None) -> Objective:
    """One channel of a layer at row y and column x of its output (N, C, h, w), by default the middle.

    Of an output (N, units) it is the unit, which has no place.

    Raises
    ------
    ParamsError
        If only one of y and x is given.
    """
    if (y is None) != (x is None):
        raise ParamsError(f"neuron {channel} of {layer}: give both y and x, or neither for the middle")
    place = (None, None) if y is None or x is None else (operator.index(y), operator.index(x))
    return _of(Neuron(_path(layer), operator.index(channel), *place))


def channel(layer: str, i: int) -> Objective:
    """Channel i of a layer's output: (N, C, h, w), where it is averaged over places; (N, tokens, C), where it
    is averaged over tokens; or (N, C).
    """
    return _of(Channel(_path(layer), operator.index(i)))


def layer(name: str) -> Objective:
    """The mean square of all that a layer returns: DeepDream."""
    return _of(Activity(_path(name)))


def direction(layer: str, vector: Tensor) -> Objective:
    """The dot product of a layer's channels with a vector (C,), averaged over places or tokens.

    The vector is taken as it is: one twice as long weighs twice as much.

    Raises
    ------
    ParamsError
        If it is no vector, zero, NaN or infinite.
    """
    values = torch.as_tensor(vector).detach().to("cpu", torch.float32, copy=True).contiguous()
    if values.dim() != 1 or not torch.isfinite(values).all() or not values.any():
        raise ParamsError(
            f"the direction in {layer} is of shape {tuple(values.shape)}; it must be (channels,), finite and "
            "not zero"
        )
    return _of(Direction(_path(layer), _digest(values), values))


def token(layer: str, index: int, unit: int | None = None) -> Objective:
    """One unit of a token in a layer's output (N, tokens, units), or the mean square of its units.

    Token 0 is the class token where the model has one.
    """
    number = None if unit is None else operator.index(unit)
    return _of(Token(_path(layer), operator.index(index), number))


def head(layer: str, index: int, heads: int) -> Objective:
    """The mean square of one attention head: its even part of the units of (N, tokens, units).

    For layers that return all heads side by side, such as the values' projection (``v_proj`` in transformers)
    and timm's ``attn.norm``; after the projection of an attention's output its heads are mixed.

    Raises
    ------
    ParamsError
        If there is no such head.
    """
    if not 0 <= index < heads:
        raise ParamsError(f"head {index} of {layer}: of {heads} heads, they are 0 to {heads - 1}")
    return _of(AttentionHead(_path(layer), operator.index(index), operator.index(heads)))


def _path(name: str) -> str:
    if not name:
        raise ParamsError("the layer of an objective has no name; give a module's path, such as layer3")
    return name


def evaluate(
    objectives: Sequence[Objective],
    outputs: Tensor,
    activations: Mapping[str, Tensor],
    *,
    head: Head = "softmax",
) -> Tensor:
    """One value (R,) for each row of a batch: row i's objective of row i's image, and of no other.

    Differentiable, float32 or what the outputs have above that.

    Parameters
    ----------
    objectives
        R of them.
    outputs
        The model's scores (R, K) or (R, K, h, w).
    activations
        What the objectives' layers return, (R, …) each, as of `candling.models.recording`. Four axes are
        (R, channels, height, width), three (R, tokens, units), two (R, units).
    head
        How scores become probabilities, for `probability`.

    Raises
    ------
    ModelError
        If a layer was not called, or what it returned does not fit an objective.
    """
    groups: defaultdict[Hashable, list[tuple[int, float, Term]]] = defaultdict(list)
    for row, objective in enumerate(objectives):
        for weight, term in objective.terms:
            groups[term.group].append((row, weight, term))
    dtype = torch.promote_types(outputs.dtype, torch.float32)
    total = torch.zeros(len(objectives), dtype=dtype, device=outputs.device)
    for members in groups.values():
        rows, weights, terms = (list(column) for column in zip(*members, strict=True))
        found = _found(terms[0].layer, outputs, activations, len(objectives))
        for term in terms:
            term.fit(found.shape)
        values = type(terms[0]).read(terms, found, _numbers(rows, found), head).to(total)
        # Not index_add, whose order of sums is left open on a GPU.
        weighted = values * torch.tensor(weights, dtype=dtype, device=total.device)
        total = total.index_put((_numbers(rows, total),), weighted, accumulate=True)
    return total


def _found(layer: str, outputs: Tensor, activations: Mapping[str, Tensor], rows: int) -> Tensor:
    """What a layer, or the model, returned for all rows."""
    if layer and layer not in activations:
        raise ModelError(
            f"layer {layer!r} was not called when the model ran, so that nothing can be read from it; choose "
            "the layer around it"
        )
    found = activations[layer] if layer else outputs
    if found.dim() == 0 or len(found) != rows:
        raise ModelError(
            f"{layer or 'the model'} returns a tensor of shape {tuple(found.shape)} for {rows} images; its "
            "first axis must be that of the images"
        )
    return found


def check(objective: Objective, model: nn.Module, image_size: tuple[int, int], channels: int = 3) -> None:
    """See that a model has what an objective climbs, by one grey picture (1, channels, *image_size).

    Raises
    ------
    ModelError
        If a layer is unknown or not called, a class, channel, token or unit out of range, a layer's output of
        the wrong rank, or the model does not take such a picture.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    picture = torch.full((1, channels, *image_size), 0.5, device=device)
    with recording(model, objective.layers) as activations, evaluating(model), torch.no_grad():
        found = answer(model, picture)
    # A model that is climbed by its layers alone need not have scores.
    outputs = scores(found) if any(not term.layer for _, term in objective.terms) else picture
    for _, term in objective.terms:
        term.fit(_found(term.layer, outputs, activations, 1).shape)


# --- text ----------------------------------------------------------------------------------------------

_FORMS = (
    "logit[zebra], logit[340], margin[…], probability[…], layer3, layer3.channel[17], layer3.neuron[17], "
    "layer3.neuron[17,4,5], encoder.3.token[0], encoder.3.token[0].unit[5], encoder.3.v_proj.head[2 of 12], "
    "and sums such as 2*logit[3] - 0.5*layer3"
)
# A minus within a path belongs to it, because modules may be called so; after a bare path it needs a space.
_SUMMAND = re.compile(
    r"""\s* (?P<sign>[+-])? \s*
    (?: (?P<weight> (?:\d+\.?\d*|\.\d+) (?:e[+-]?\d+)? ) \s*\*\s* )?
    (?P<path> [^\s\[\]+*-] [^\s\[\]+*]* )
    (?: \[ (?P<inside> "[^"]*" | [^\]]* ) \] (?: \.unit\[ (?P<unit>\d+) \] )? )?
    \s* (?= [+-] | $ )""",
    re.VERBOSE | re.IGNORECASE,
)
_OF_CLASS = {"logit": logit, "margin": margin, "probability": probability}


def parse(text: str, classes: Sequence[str] = ()) -> Objective:
    """The objective that a text describes.

    It is a sum of ``logit[zebra]``, ``logit[340]``, ``margin[…]``, ``probability[…]``, ``layer3`` (`layer`),
    ``layer3.channel[17]``, ``layer3.neuron[17]`` or ``layer3.neuron[17,4,5]`` (channel, y, x),
    ``encoder.3.token[0]``, ``encoder.3.token[0].unit[5]`` and ``encoder.3.v_proj.head[2 of 12]``, each with a
    weight or none: ``2*logit[3] - 0.5*layer3``. It is also what ``str`` of an objective gives.

    Parameters
    ----------
    classes
        Names in the order of the logits. A number is always the place in that order; a name that is a number
        is quoted, as is one with a bracket: ``logit["7"]``.

    Raises
    ------
    ParamsError
        If the text has none of these forms, or there is no such class.
    """
    found: list[tuple[float, Term]] = []
    position = 0
    while position < len(text) or not found:
        summand = _SUMMAND.match(text, position)
        if summand is None or (found and not summand["sign"]):
            raise ParamsError(f"objective {text!r}: not understood from {text[position:]!r}; write {_FORMS}")
        weight = float(summand["weight"] or 1) * (-1 if summand["sign"] == "-" else 1)
        one = _summand(summand["path"], summand["inside"], summand["unit"], text, classes)
        found += (weight * one).terms
        position = summand.end()
    return Objective(tuple(found))


def _summand(path: str, inside: str | None, unit: str | None, text: str, classes: Sequence[str]) -> Objective:
    if inside is None:
        return layer(path)
    where, _, kind = path.rpartition(".")
    inside = inside.strip()
    if path in _OF_CLASS and inside and unit is None:
        return _OF_CLASS[path](_class(inside, text, classes))
    if kind in ("region", "direction"):
        raise ParamsError(f"objective {text!r}: a {kind} has no text; make it with {kind}() in Python")
    numbers = re.fullmatch(r"\d+(?:\s*,\s*\d+)*", inside)
    several = [int(number) for number in inside.split(",")] if numbers else []
    if where and kind == "token" and len(several) == 1:
        return token(where, several[0], None if unit is None else int(unit))
    if where and unit is None:
        if kind == "channel" and len(several) == 1:
            return channel(where, several[0])
        if kind == "neuron" and len(several) in (1, 3):
            return neuron(where, *several)
        part = re.fullmatch(r"(\d+)\s+of\s+(\d+)", inside)
        if kind == "head" and part:
            return head(where, int(part[1]), int(part[2]))
    raise ParamsError(f"objective {text!r}: {path}[{inside}] is not understood; write {_FORMS}")


def _class(named: str, text: str, classes: Sequence[str]) -> int:
    """The place of a class that is given by its place, its name or its name in quotes."""
    if re.fullmatch(r"\d+", named):
        return int(named)
    try:
        return place_named(named[1:-1] if re.fullmatch('".*"', named) else named, classes)
    except ParamsError as error:
        raise ParamsError(f"objective {text!r}: {error}") from error


def place_named(name: str, classes: Sequence[str]) -> int:
    """The place of the class of a name, of a name written otherwise, or of one of its synonyms.

    Raises
    ------
    ParamsError
        If there is no such class, or several could be meant.
    """
    places = [place for place, other in enumerate(classes) if other == name]
    if len(places) > 1:
        raise ParamsError(f"the classes {', '.join(map(str, places))} are all called {name!r}; give a number")
    if places:
        return places[0]
    try:
        found = place_of(name, classes)
    except DataError as error:
        raise ParamsError(str(error)) from error
    if found is None:
        known = nearest(name, classes) if classes else "names of classes are not known here, give a number"
        raise ParamsError(f"there is no class {name!r}; {known}")
    return found
