"""Places put to the test: a region is removed, and transplanted into pictures of other classes.

Removing fills the region in from its edge (`candling.vision.counterfactuals.inpainting`); transplanting
copies it, feathered, into a picture that is predicted as another class. Both are counted in flips: how often
the prediction leaves the class, and how often it becomes the class. What a cut and an odd patch do by
themselves is told by placebos, on the same pictures: (a) the same at other places of equal area and shape,
and (b) the same place from a picture of the class that is already predicted. A region is confirmed only where
it beats every one of them by more than chance and by enough to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candling.data import unit
from candling.errors import ParamsError
from candling.models import log_odds, logits
from candling.statistics import Estimate, resampled_sums, sums_by_source
from candling.vision.counterfactuals.candidates import (
    Candidate,
    Kind,
    border_widths,
    border_words,
)
from candling.vision.counterfactuals.foreground import CORE, estimated_foreground
from candling.vision.counterfactuals.inpainting import inpaint
from candling.vision.counterfactuals.regions import dilated, elsewhere, inner_ring, ring
from candling.vision.counterfactuals.swaps import feathered

__all__ = ["Bench", "PlaceTest", "Route", "Settings", "Status", "examine_place", "paired", "region_alone"]

Status = Literal["confirmed", "dismissed", "untested"]
PLACEBO_PLACES = 3
OWN_CLASS = "own class"  # the placebo (b)
# In which they are tested: each may contain those before it, and is not blamed for what they do.
ORDER: tuple[Kind, ...] = ("object", "place", "patch", "border", "background")
PROBES, PROBED = 32, 4  # pairs of pictures that widths of borders are tried on, and how many widths
_NEARLY = 0.8  # of the flips of the best width
_HALO = 12  # the part of the side by which a confirmed region may be larger than it was told to be
_LEFT = 0.5  # of a region: pairs of pictures in which less of it is free of objects are left out


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How places are tested.

    pictures: pairs of pictures for each candidate, at most. least: pairs below which nothing is said.
    matters: the smallest effect, in flips of all pictures, that is worth a finding. confidence: of the
    intervals, before they are widened for the number of tests. resamples: of the bootstrap. seed: which
    picture meets which.
    """

    pictures: int = 100
    least: int = 30
    matters: float = 0.1
    confidence: float = 0.95
    resamples: int = 4000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("pictures", 1), ("least", 2), ("resamples", 100)):
            if getattr(self, name) < low:
                raise ParamsError(f"{name} must be {low} or more, got {getattr(self, name)}")
        if not 0 <= self.matters < 1:
            raise ParamsError(f"matters must lie in [0, 1), got {self.matters}")
        if not 0 < self.confidence < 1:
            raise ParamsError(f"confidence must lie in (0, 1), got {self.confidence}")


@dataclass(frozen=True)
class Route:
    """One of the two operations, counted.

    rate: share of pictures that flipped. placebos: the same share for each placebo. effect: rate less the
    placebo that comes closest, with its interval. log_odds: mean change of the class's log-odds, towards it
    for a transplant and away from it for a removal, less that of the closest placebo.
    """

    rate: float
    placebos: dict[str, float]
    effect: Estimate
    log_odds: float


@dataclass(frozen=True)
class PlaceTest:
    """What became of a candidate.

    n: pairs of pictures. transplant, removal: counted; None where nothing was. why: one sentence. confidence:
    of the intervals, widened for the number of tests.
    """

    status: Status
    why: str
    n: int
    transplant: Route | None = None
    removal: Route | None = None
    confidence: float = 0.95

    @property
    def effect(self) -> Estimate | None:
        """Of the operation whose lower end is higher."""
        routes = [route for route in (self.transplant, self.removal) if route is not None]
        return max((route.effect for route in routes), key=lambda effect: effect.low, default=None)


@dataclass(eq=False)
class Bench:
    """A model with its pictures, as all tests of places share them.

    images: (N, 3, H, W), uint8 or float in [0, 1]. predicted: int (N,). odds: (N, K) log-odds. objects: bool
    (N, H, W), what is kept out of tests where it is known. sources: what each picture was taken from.
    settled: of each kind, the regions bool (N, H, W) that have been confirmed; tests of kinds that may
    contain them leave them as they are.
    evaluations: pictures that went through the model, so far.
    """

    model: nn.Module
    images: Tensor
    objects: Tensor
    masked: bool
    sources: Sequence[Hashable]
    settings: Settings
    batch: int | None = None
    evaluations: int = 0
    odds: Tensor = field(init=False)
    predicted: Tensor = field(init=False)
    settled: dict[Kind, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        out = logits(self.model, self.images, batch=self.batch)
        self.odds = log_odds(self.model, out)
        self.predicted = out.argmax(1)
        self.evaluations += len(self.images)

    def ask(self, images: Tensor, target: int) -> tuple[Tensor, Tensor]:
        """Whether changed images (M, 3, H, W) are predicted as the target, and its log-odds: each (M,)."""
        out = logits(self.model, images, batch=self.batch)
        self.evaluations += len(images)
        return out.argmax(1) == target, log_odds(self.model, out)[:, target]

    def settle(self, candidate: Candidate) -> None:
        """Take a candidate for confirmed."""
        regions = candidate.of(torch.arange(len(self.images)))
        regions = dilated(regions, max(1, min(regions.shape[1:]) // _HALO))
        self.settled[candidate.kind] = self.settled.get(candidate.kind, torch.zeros_like(regions)) | regions

    def settled_within(self, kind: Kind) -> Tensor:
        """What has been confirmed of kinds that a candidate of this kind may contain: bool (N, H, W)."""
        found = torch.zeros_like(self.objects)
        for smaller in ORDER[: ORDER.index(kind)]:
            if smaller in self.settled:
                found = found | self.settled[smaller]
        return found

    def pictures(self, rows: Tensor) -> Tensor:
        """Pictures float (M, 3, H, W) in [0, 1], by row."""
        return unit(self.images[rows])


@dataclass(frozen=True)
class _Pairs:
    """Rows of donors of the class, of receivers of others, and of a peer of each, of the same class."""

    donors: Tensor
    receivers: Tensor
    receivers_peers: Tensor
    donors_peers: Tensor

    def __len__(self) -> int:
        return len(self.donors)

    def take(self, rows: Tensor) -> _Pairs:
        return _Pairs(
            self.donors[rows], self.receivers[rows], self.receivers_peers[rows], self.donors_peers[rows]
        )


def paired(bench: Bench, target: int, eligible: Tensor | None = None) -> _Pairs:
    """Who meets whom: each donor and each receiver once, so that pairs are samples of their own.

    Receivers are spread evenly over the other classes that are predicted. Peers are other pictures, from
    other sources, that are predicted the same; who has none is left out.

    Parameters
    ----------
    target
        The class that donors are predicted as.
    eligible
        bool (N,): which pictures may be donors; None: all.
    """
    generator = np.random.default_rng([bench.settings.seed, target])
    predicted = bench.predicted.tolist()
    order = generator.permutation(len(predicted)).tolist()
    by_class: dict[int, list[int]] = {}
    for row in order:
        by_class.setdefault(predicted[row], []).append(row)

    def peers(rows: list[int]) -> list[int]:
        """The next picture of another source in the class's order, or -1."""
        found = []
        for row in rows:
            own = by_class[predicted[row]]
            start = own.index(row)
            turn = (own[(start + step) % len(own)] for step in range(1, len(own)))
            found.append(next((one for one in turn if bench.sources[one] != bench.sources[row]), -1))
        return found

    others = [rows for label, rows in sorted(by_class.items()) if label != target]
    longest = max(map(len, others), default=0)
    receivers = [rows[turn] for turn in range(longest) for rows in others if turn < len(rows)]
    donors = [row for row in by_class.get(target, ()) if eligible is None or bool(eligible[row])]
    receivers = [row for row, peer in zip(receivers, peers(receivers), strict=True) if peer >= 0]
    donors = [row for row, peer in zip(donors, peers(donors), strict=True) if peer >= 0]
    count = min(len(donors), len(receivers), bench.settings.pictures)
    donors, receivers = donors[:count], receivers[:count]
    columns = (donors, receivers, peers(receivers), peers(donors))
    return _Pairs(*(torch.tensor(column, dtype=torch.long) for column in columns))


def _blend(receivers: Tensor, donors: Tensor, regions: Tensor) -> Tensor:
    """Regions bool (M, H, W) of donors, feathered, in receivers, both (M, 3, H, W)."""
    weight = feathered(regions)
    return weight * donors + (1 - weight) * receivers


@dataclass(frozen=True)
class _Outcome:
    """Of each pair: whether it flipped, and how far the class's log-odds moved that way. (M,) each."""

    flipped: Tensor
    moved: Tensor


Ask = Callable[[Tensor], _Outcome]


def _asker(bench: Bench, target: int, rows: Tensor, *, leaving: bool) -> Ask:
    """How changed versions of pictures, by row, are counted."""
    before = bench.odds[rows, target]

    def ask(images: Tensor) -> _Outcome:
        hit, odds = bench.ask(images, target)
        return _Outcome(~hit if leaving else hit, before - odds if leaving else odds - before)

    return ask


def _effect(
    differences: NDArray[np.float64],
    sources: Sequence[Sequence[Hashable]],
    confidence: float,
    settings: Settings,
) -> Estimate:
    """The smallest of the mean paired differences (M, J), its interval the widest over what may be shared.

    Sources are resampled whole, those of donors and those of receivers in turn, since both may repeat. To
    beat all placebos needs no correction: each must be beaten (intersection-union test, Berger 1982).
    """
    count = len(differences)
    tail = 100 * (1 - confidence) / 2
    table = np.concatenate([differences, np.ones((count, 1))], 1)
    means = differences.mean(0)
    closest = int(means.argmin())
    low, high, n = np.inf, -np.inf, count
    for shared in sources:
        sums = sums_by_source(table, shared)
        drawn = resampled_sums(sums, resamples=settings.resamples, seed=settings.seed)
        values = drawn[:, :-1] / drawn[:, -1:]
        low = min(low, float(np.percentile(values, tail, axis=0).min()))
        high = max(high, float(np.percentile(values[:, closest], 100 - tail)))
        n = min(n, len(sums))
    return Estimate(float(means[closest]), low, high, n)


def _route(
    done: _Outcome,
    placebos: dict[str, _Outcome],
    sources: Sequence[Sequence[Hashable]],
    confidence: float,
    settings: Settings,
) -> Route:
    flips = np.stack(
        [(done.flipped.double() - one.flipped.double()).cpu().numpy() for one in placebos.values()], 1
    )
    moved = min(float((done.moved - one.moved).mean()) for one in placebos.values())
    return Route(
        float(done.flipped.double().mean()),
        {name: float(one.flipped.double().mean()) for name, one in placebos.items()},
        _effect(flips, sources, confidence, settings),
        moved,
    )


def examine_place(bench: Bench, candidate: Candidate, *, tests: int = 1) -> PlaceTest:
    """Test one candidate.

    Parameters
    ----------
    bench
        Model and pictures; regions that it has as settled stay as they are in all changed pictures.
    candidate
        What is suspected.
    tests
        How many candidates are tested in all: intervals are widened by Bonferroni's rule for two operations
        on each.

    Returns
    -------
    PlaceTest
        ``untested`` where there are too few pictures, or no mask tells the region from the object.
    """
    settings = bench.settings
    if candidate.kind == "object":
        share = f"{candidate.share_of_evidence:.0%} of the evidence"
        return PlaceTest("dismissed", f"{share} is there, on the object, where it is expected", 0)
    if candidate.central:
        return PlaceTest("untested", "it may be the object; masks of the objects would tell", 0)
    confidence = 1 - (1 - settings.confidence) / (2 * max(1, tests))
    count_background = candidate.kind == "background"
    run = _exchange_background if count_background else _move_region
    found = run(bench, candidate, confidence)
    if isinstance(found, PlaceTest):
        return found
    transplant, removal, n = found
    passed = [
        name
        for name, route in (("transplanted", transplant), ("removed", removal))
        if route.effect.low > 0 and route.effect.value >= settings.matters
    ]
    if passed:
        why = f"{' and '.join(passed)}, it moves the prediction more than every placebo does"
        return PlaceTest("confirmed", why, n, transplant, removal, confidence)
    best = max(transplant.effect.value, removal.effect.value)
    if best >= settings.matters:
        why = "what it does beyond the placebos may be chance"
    elif best > 0:
        why = f"it does hardly more than a placebo: the difference is below {settings.matters:g}"
    else:
        why = "it does no more than a placebo"
    return PlaceTest("dismissed", why, n, transplant, removal, confidence)


def _few(n: int, settings: Settings) -> PlaceTest:
    return PlaceTest("untested", f"only {n} pairs of pictures could be made, {settings.least} are needed", n)


def _sources(bench: Bench, pairs: _Pairs) -> list[list[Hashable]]:
    return [[bench.sources[row] for row in rows.tolist()] for rows in (pairs.donors, pairs.receivers)]


def _move_region(
    bench: Bench, candidate: Candidate, confidence: float
) -> PlaceTest | tuple[Route, Route, int]:
    """A region taken out, and put into others."""
    settings, target = bench.settings, candidate.target
    eligible = None if candidate.region.dim() == 2 else candidate.region.flatten(1).any(1)
    pairs = paired(bench, target, eligible)
    if len(pairs) < settings.least:
        return _few(len(pairs), settings)
    margin = max(1, min(candidate.region.shape[-2:]) // 32)
    # Where content is the same everywhere, it may lie across the object; elsewhere objects stay as they are.
    spared = bench.objects if bench.masked and not candidate.recurs else torch.zeros_like(bench.objects)
    spared = spared | bench.settled_within(candidate.kind)

    def free(places: Tensor, *owners: Tensor) -> Tensor:
        for rows in owners:
            places = places & ~spared[rows]
        return places

    own = dilated(candidate.of(pairs.donors), 0 if candidate.kind == "border" else margin)
    area = own.flatten(1).sum(1)
    kept = free(own, pairs.donors, pairs.receivers, pairs.receivers_peers, pairs.donors_peers)
    usable = torch.nonzero(kept.flatten(1).sum(1) >= _LEFT * area).flatten()
    others = _elsewhere(candidate, own)
    if not others:
        return PlaceTest("untested", "no other place of equal area is left to compare it with", len(pairs))
    if len(usable) < settings.least:
        return _few(len(usable), settings)
    pairs, own = pairs.take(usable), own[usable]
    others = {name: places[usable] for name, places in others.items()}
    donors, receivers = bench.pictures(pairs.donors), bench.pictures(pairs.receivers)
    sources = _sources(bench, pairs)

    ask = _asker(bench, target, pairs.receivers, leaving=False)
    there = free(own, pairs.donors, pairs.receivers, pairs.receivers_peers)
    placebos = {
        name: ask(_blend(receivers, donors, free(places, pairs.donors, pairs.receivers)))
        for name, places in others.items()
    }
    placebos[OWN_CLASS] = ask(_blend(receivers, bench.pictures(pairs.receivers_peers), there))
    done = ask(_blend(receivers, donors, there))
    transplant = _route(done, placebos, sources, confidence, settings)

    ask = _asker(bench, target, pairs.donors, leaving=True)
    there = free(own, pairs.donors, pairs.donors_peers)
    placebos = {name: ask(inpaint(donors, free(places, pairs.donors))) for name, places in others.items()}
    placebos[OWN_CLASS] = ask(_blend(donors, bench.pictures(pairs.donors_peers), there))
    done = ask(inpaint(donors, there))
    removal = _route(done, placebos, sources, confidence, settings)
    return transplant, removal, len(pairs)


def fitted(bench: Bench, candidate: Candidate) -> Candidate:
    """A border of the width that does it: the narrowest whose transplant does nearly what any other does.

    Evidence maps are coarser than frames are wide. Other candidates stay as they are.
    """
    if candidate.kind != "border":
        return candidate
    pairs = paired(bench, candidate.target)
    pairs = pairs.take(torch.arange(min(len(pairs), PROBES)))
    if not len(pairs):
        return candidate
    size = (candidate.region.shape[0], candidate.region.shape[1])
    donors, receivers = bench.pictures(pairs.donors), bench.pictures(pairs.receivers)
    ask = _asker(bench, candidate.target, pairs.receivers, leaving=False)
    rings = [ring(size, width) for width in border_widths(size)]
    moved = [ask(_blend(receivers, donors, one.expand(len(pairs), -1, -1))) for one in rings]
    flips = [float(one.flipped.float().mean()) for one in moved]
    if max(flips) == 0:
        return candidate
    best = next(one for one, share in zip(rings, flips, strict=True) if share >= _NEARLY * max(flips))
    share = float(candidate.pooled[best].sum())
    return replace(candidate, region=best, words=border_words(best), share_of_evidence=share)


def _elsewhere(candidate: Candidate, own: Tensor) -> dict[str, Tensor]:
    """The placebo's places bool (M, H, W), for regions (M, H, W)."""
    if candidate.kind == "border":
        size = (own.shape[1], own.shape[2])
        width = int(candidate.region[:, size[1] // 2].long().cumprod(0).sum())
        return {"a ring further in": inner_ring(size, width).expand_as(own)}
    if candidate.region.dim() == 2:
        found = elsewhere(own[0], most=PLACEBO_PLACES)
        return {f"another place {turn}": one.expand_as(own) for turn, one in enumerate(found, 1)}
    places = [elsewhere(region, most=1) for region in own]
    if not all(places):
        return {}
    return {"another place 1": torch.stack([found[0] for found in places])}


def _exchange_background(
    bench: Bench, candidate: Candidate, confidence: float
) -> PlaceTest | tuple[Route, Route, int]:
    """Objects on the background of others, from which the object has been removed.

    No other place is as large. Where the object is a guess, placebo (a) is what is most likely the object,
    put into the other picture in the same way: the background must decide more than that does.
    """
    settings, target = bench.settings, candidate.target
    # Where there is no object, all of the picture would be exchanged.
    shows = bench.objects.flatten(1).any(1)
    pairs = paired(bench, target, shows)
    usable = torch.nonzero(shows[pairs.receivers] & shows[pairs.donors]).flatten()
    if len(usable) < settings.least:
        return _few(len(usable), settings)
    pairs = pairs.take(usable)
    sources = _sources(bench, pairs)

    rows, at = torch.cat([pairs.donors, pairs.donors_peers, pairs.receivers, pairs.receivers_peers]).unique(
        return_inverse=True
    )
    emptied = inpaint(bench.pictures(rows), bench.objects[rows])
    donors, donors_peers, receivers, receivers_peers = at.view(4, -1)
    settled = bench.settled_within("background")

    def onto(objects: Tensor, backgrounds: Tensor) -> Tensor:
        around = ~bench.objects[objects] & ~settled[objects] & ~settled[rows[backgrounds]]
        return _blend(bench.pictures(objects), emptied[backgrounds], around)

    arrive = _asker(bench, target, pairs.receivers, leaving=False)
    leave = _asker(bench, target, pairs.donors, leaving=True)
    moved = arrive(onto(pairs.receivers, donors))
    left = leave(onto(pairs.donors, receivers))
    arriving = {OWN_CLASS: arrive(onto(pairs.receivers, receivers_peers))}
    leaving = {OWN_CLASS: leave(onto(pairs.donors, donors_peers))}
    if candidate.estimated:
        guessed = estimated_foreground(bench.pictures(rows), CORE)
        put = partial(_put_core, bench, rows, emptied, guessed)
        arriving["the guessed object"] = arrive(put(receivers, donors))
        leaving["the guessed object"] = leave(put(donors, receivers))
    transplant = _route(moved, arriving, sources, confidence, settings)
    removal = _route(left, leaving, sources, confidence, settings)
    return transplant, removal, len(pairs)


def _put_core(
    bench: Bench, rows: Tensor, emptied: Tensor, guessed: Tensor, backgrounds: Tensor, objects: Tensor
) -> Tensor:
    """What is taken for the object, closely, of pictures `rows[objects]` in those of `rows[backgrounds]`."""
    return _blend(emptied[backgrounds], bench.pictures(rows[objects]), guessed[objects])


def region_alone(bench: Bench, candidate: Candidate) -> Tensor:
    """Log-odds (N,) of the class where nothing but the region is left, the rest being of one colour."""
    count, colour = len(bench.images), unit(bench.images).mean((0, 2, 3)).view(1, 3, 1, 1)
    found = []
    for rows in torch.arange(count).split(256):
        pictures = bench.pictures(rows)
        if candidate.kind == "background" and candidate.region.dim() == 3:
            alone = inpaint(pictures, bench.objects[rows])
        else:
            alone = _blend(colour.expand_as(pictures), pictures, candidate.of(rows))
        found.append(bench.ask(alone, candidate.target)[1])
    return torch.cat(found)
