"""From suspicion to test: candidates of all classes, each tested, and told in plain words and figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from candling.data import unit
from candling.errors import DataError, ParamsError
from candling.statistics import Estimate
from candling.vision.counterfactuals.candidates import Candidate, objects_of, propose
from candling.vision.counterfactuals.places import (
    ORDER,
    OWN_CLASS,
    PLACEBO_PLACES,
    PROBED,
    PROBES,
    Bench,
    PlaceTest,
    Route,
    Settings,
    examine_place,
    fitted,
    region_alone,
)
from candling.vision.counterfactuals.regions import contrast

__all__ = ["Tested", "most_evaluations", "predicts_in_groups", "suspect"]

Progress = Callable[[int, int], None]

_MOST_TESTED = 6  # of a class: three places, a patch, the border and the background
# Measured on drawn scenes: up to 1.2 where a background meets the border, from 2 where something is put.
_SET_OFF = 1.5  # contrast with what is around, beside the picture's own roughness
_FEWEST_EACH = 10  # pictures with and without the label, below which a group says nothing


@dataclass(frozen=True, eq=False)
class Tested:
    """A candidate with what its test said, as plain data for a finding.

    kind: ``insight`` where a confirmed region predicts the label in every group, else ``shortcut``. groups:
    for a confirmed region, how well it alone ranks pictures of the class before others (AUC, chance 0.5).
    explained_by: slug of the factor that does as much by itself, which a background brings along. beside:
    regions that were confirmed before and stayed as they are in its test.
    """

    id: str
    kind: Literal["shortcut", "insight"]
    class_name: str
    statement: str
    candidate: Candidate
    test: PlaceTest
    groups: dict[str, Estimate]
    explained_by: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def status(self) -> Literal["confirmed", "dismissed", "untested"]:
        """Of the test."""
        return self.test.status

    def evidence(self) -> dict[str, float]:
        """Figures of what raised the suspicion, shares in [0, 1]."""
        return {
            "area": self.candidate.area,
            "share_of_pictures": self.candidate.share_of_pictures,
            "share_of_evidence": self.candidate.share_of_evidence,
        }

    def details(self) -> dict[str, Any]:
        """The test as plain data."""
        found: dict[str, Any] = {
            "what": "remove and transplant against placebos",
            "region": self.candidate.words,
            "candidate": self.candidate.kind,
            "n": self.test.n,
            "confidence": self.test.confidence,
            "why": self.test.why,
        }
        for name, route in (("transplant", self.test.transplant), ("removal", self.test.removal)):
            if route is not None:
                found[name] = {
                    "rate": route.rate,
                    "placebos": dict(route.placebos),
                    "effect": route.effect._asdict(),
                    "log_odds": route.log_odds,
                }
        if self.explained_by is not None:
            found["explained_by"] = self.explained_by
        if self.groups:
            found["auc_alone"] = {name: estimate._asdict() for name, estimate in self.groups.items()}
        return found


def most_evaluations(images: int, classes: int, settings: Settings | None = None) -> int:
    """How many pictures go through the model at the most, for a plan."""
    pairs = min((settings or Settings()).pictures, images)
    a_test = 2 * (2 + PLACEBO_PLACES) * pairs
    # Border and background may be tested twice, and every confirmed candidate is shown by itself once.
    return images + classes * ((_MOST_TESTED + 2) * a_test + _MOST_TESTED * images + PROBED * PROBES)


def suspect(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    maps: Tensor,
    classes_of_maps: Tensor,
    *,
    classes: Sequence[int],
    names: Sequence[str],
    rows: Sequence[int] | None = None,
    masks: Tensor | None = None,
    groups: Sequence[str] | None = None,
    sources: Sequence[Hashable] | None = None,
    settings: Settings | None = None,
    batch: int | None = None,
    progress: Progress | None = None,
) -> list[Tested]:
    """Pool evidence maps into candidates, test each, and tell what was found.

    The smallest candidates are tested first. What is confirmed stays as it is in the tests of larger ones, so
    that the background is not blamed for a corner of it.

    Parameters
    ----------
    model
        Images (N, 3, H, W) in [0, 1] to logits.
    images
        (N, 3, H, W), uint8 or float in [0, 1], held out; the more, the smaller an effect can be told.
    labels
        int (N,).
    maps, classes_of_maps
        Evidence (M, K, H, W) for classes (M, K), as `candling.vision.isolation.isolate` gives them. A map
        counts where its class is the one predicted.
    classes
        Which classes are looked at; `names` are of all.
    rows
        M, the pictures that the maps are of; None: the first M.
    masks
        bool (N, H, W), the objects and all else that is expected to count; None: not known.
    groups
        N, environments or slices; None: nothing can be called an insight.
    sources
        N, what each picture was taken from; None: each is a source of its own.
    batch
        Images evaluated at a time; None: as `logits` has it.
    progress
        Told of candidates tested, of all.

    Returns
    -------
    list of Tested
        Class by class, confirmed ones first.

    Raises
    ------
    DataError
        If sizes or lengths do not go together.
    ParamsError
        If a class is not one of the model's.
    ModelError
        If the model returns NaN or no scores.
    """
    settings = settings or Settings()
    # Regions are made and compared on the CPU; `logits` brings pictures to the model.
    images, labels, maps, classes_of_maps = (one.cpu() for one in (images, labels, maps, classes_of_maps))
    masks = None if masks is None else masks.cpu()
    at = torch.arange(len(maps)) if rows is None else torch.as_tensor(list(rows), dtype=torch.long)
    _check(images, labels, maps, classes_of_maps, at, masks, groups, sources)
    floats = unit(images)
    objects = objects_of(floats, None if masks is None else masks.bool())
    bench = Bench(
        model, images, objects, masks is not None,
        list(range(len(images))) if sources is None else list(sources), settings, batch,
    )  # fmt: skip
    count = bench.odds.shape[1]
    if wrong := [k for k in classes if not 0 <= k < count]:
        raise ParamsError(f"there is no class {wrong[0]}; the model has {count}, 0 to {count - 1}")
    found: list[Candidate] = []
    for target in classes:
        own = (classes_of_maps == target) & (bench.predicted[at] == target)[:, None]
        seen = torch.nonzero(own.any(1)).flatten()
        if len(seen):
            chosen = maps[seen, own[seen].int().argmax(1)]
            found += propose(
                chosen, at[seen], floats, target,
                masks=None if masks is None else masks.bool(), objects=objects, seed=settings.seed,
            )  # fmt: skip
    tests = sum(candidate.kind != "object" and not candidate.central for candidate in found)
    order = sorted(range(len(found)), key=lambda i: (ORDER.index(found[i].kind), found[i].target, i))
    tested: list[tuple[Candidate, PlaceTest]] = []
    vague: list[tuple[Candidate, float]] = []
    held: list[Candidate] = []
    beside: list[tuple[str, ...]] = []
    for done, i in enumerate(order, 1):
        candidate = fitted(bench, found[i])
        smaller = [one for one in held if ORDER.index(one.kind) < ORDER.index(candidate.kind)]
        beside.append(tuple(dict.fromkeys(one.where for one in smaller)))
        test = examine_place(bench, candidate, tests=tests)
        within = [(place, pull) for place, pull in vague if place.target == candidate.target]
        if test.status == "confirmed" and candidate.kind in ("border", "background") and within:
            whole = test
            test = _without(bench, candidate, whole, within, tests)
            if test is not whole:
                beside[-1] += tuple(place.where for place, _ in within)
        if test.status == "confirmed":
            if not _blends(bench, candidate):
                bench.settle(candidate)
                held.append(candidate)
            elif candidate.kind == "place":
                vague.append((candidate, _pull(test)))
        tested.append((candidate, test))
        if progress is not None:
            progress(done, len(order))
    told = []
    for (candidate, test), kept in zip(absorbed(bench, tested), beside, strict=True):
        by_group: dict[str, Estimate] = {}
        if test.status == "confirmed" and groups is not None:
            alone = region_alone(bench, candidate)
            own = labels == candidate.target
            by_group = predicts_in_groups(alone, own, groups, bench.sources, settings=settings)
        told.append(replace(_told(candidate, test, by_group, names), beside=kept))
    rank = {"confirmed": 0, "dismissed": 1, "untested": 2}
    told.sort(key=lambda one: (classes.index(one.candidate.target), rank[one.status]))
    return _numbered(told)


def _blends(bench: Bench, candidate: Candidate) -> bool:
    """Whether a place or a border is not set off from what is around it, in pictures of any class."""
    if candidate.kind not in ("place", "border"):
        return False
    shown = [
        contrast(bench.pictures(rows[: bench.settings.pictures]), candidate.region)
        for rows in (torch.nonzero(bench.predicted == k).flatten() for k in bench.predicted.unique().tolist())
        if len(rows) >= _FEWEST_EACH
    ]
    return max(shown, default=0.0) < _SET_OFF


def _without(
    bench: Bench, larger: Candidate, whole: PlaceTest, places: Sequence[tuple[Candidate, float]], tests: int
) -> PlaceTest:
    """The test of a border or background without its places that no edge sets off, if these do more."""
    before = dict(bench.settled)
    for place, _ in places:
        bench.settle(place)
    without = examine_place(bench, larger, tests=tests)
    bench.settled = before
    if without.status == "untested" or _pull(without) >= max(pull for _, pull in places):
        return whole
    why = "a place in it does more than all the rest"
    return replace(without, status="dismissed", why=why)


def absorbed(
    bench: Bench, tested: Sequence[tuple[Candidate, PlaceTest]]
) -> list[tuple[Candidate, PlaceTest]]:
    """Confirmed places and borders that are no more than a part of something larger, told as such.

    A sky decides a little in each of its corners. A place or border that no edge sets off from its
    surroundings is the background there: no finding of its own where the background is confirmed as a whole,
    and a border without an edge is never one.
    A place is none either where a border does clearly more without it, for the same class; what each does is
    its flips beyond those of the placebo of the own class, the one that they have in common.
    """
    confirmed = [(candidate, test) for candidate, test in tested if test.status == "confirmed"]
    out = []
    for candidate, test in tested:
        if test.status == "confirmed" and candidate.kind in ("place", "border"):
            blends = _blends(bench, candidate)
            larger = [
                other.where
                for other, result in confirmed
                if other.target == candidate.target
                and (
                    (blends and other.kind == "background")
                    or (
                        candidate.kind == "place"
                        and other.kind == "border"
                        and _pull(result) >= _pull(test) + bench.settings.matters
                    )
                )
            ]
            if larger:
                why = f"it is a part of {larger[0]}, which does more as a whole"
                test = replace(test, status="dismissed", why=why)
            elif blends and candidate.kind == "border":
                candidate = replace(
                    candidate, kind="background", words=f"the background at {candidate.words}"
                )
        out.append((candidate, test))
    return out


def _pull(test: PlaceTest) -> float:
    routes = [route for route in (test.transplant, test.removal) if route is not None]
    return max((route.rate - route.placebos[OWN_CLASS] for route in routes), default=0.0)


def predicts_in_groups(
    scores: Tensor,
    positive: Tensor,
    groups: Sequence[str],
    sources: Sequence[Hashable],
    *,
    settings: Settings,
) -> dict[str, Estimate]:
    """How well scores (N,) rank positive pictures, bool (N,), before others, group by group.

    Returns
    -------
    dict
        Group to the area under the ROC curve in [0, 1] with a cluster bootstrap interval; NaN for a group of
        fewer than `settings.least` pictures, or with fewer than ten of either kind.
    """
    values, truth = scores.double().cpu().numpy(), positive.cpu().numpy().astype(bool)
    found = {}
    for name in sorted(set(groups)):
        inside = np.array([one == name for one in groups])
        n, yes = int(inside.sum()), int(truth[inside].sum())
        if n < settings.least or min(yes, n - yes) < _FEWEST_EACH:
            found[name] = Estimate(float("nan"), float("nan"), float("nan"), n)
            continue
        shared = [source for source, there in zip(sources, inside, strict=True) if there]
        found[name] = _auc(values[inside], truth[inside], shared, settings)
    return found


def _auc(
    values: NDArray[np.float64], truth: NDArray[np.bool_], sources: Sequence[Hashable], settings: Settings
) -> Estimate:
    """Area under the ROC curve, Mann and Whitney's statistic, with ties counted half."""

    def area(rows: NDArray[np.int64]) -> float:
        yes = truth[rows]
        pairs = int(yes.sum()) * int((~yes).sum())
        if not pairs:
            return float("nan")
        ranks = rankdata(values[rows])
        return float((ranks[yes].sum() - yes.sum() * (yes.sum() + 1) / 2) / pairs)

    by_source: dict[Hashable, list[int]] = {}
    for row, source in enumerate(sources):
        by_source.setdefault(source, []).append(row)
    members = [np.array(rows) for rows in by_source.values()]
    generator = np.random.default_rng(settings.seed)
    drawn = [
        area(np.concatenate([members[one] for one in generator.integers(0, len(members), len(members))]))
        for _ in range(min(settings.resamples, 1000))
    ]
    tail = 100 * (1 - settings.confidence) / 2
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return Estimate(area(np.arange(len(values))), float(low), float(high), len(members))


def _told(
    candidate: Candidate,
    test: PlaceTest,
    by_group: dict[str, Estimate],
    names: Sequence[str],
) -> Tested:
    # A group that cannot tell is NaN, and NaN is above nothing.
    everywhere = bool(by_group) and all(estimate.low > 0.5 for estimate in by_group.values())
    name = names[candidate.target]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{candidate.kind} {name} {candidate.where}".lower()).strip("-")
    return Tested(
        slug, "insight" if everywhere else "shortcut", name, _statement(candidate, test, name, everywhere),
        candidate, test, by_group,
    )  # fmt: skip


def _statement(candidate: Candidate, test: PlaceTest, name: str, everywhere: bool) -> str:
    words = candidate.words
    guess = " (told from the object by a guess)" if candidate.estimated else ""
    if test.status == "untested":
        return f"'{name}' may hang on {words}{guess}: not tested, {test.why}."
    if test.transplant is None or test.removal is None:
        return f"'{name}' has its evidence on {words}: {test.why}."
    better = max((test.transplant, test.removal), key=lambda route: route.effect.low)
    figures = _figures(better, transplanted=better is test.transplant, n=test.n)
    if test.status == "dismissed":
        return f"'{name}' does not hang on {words}{guess}: {test.why}; {figures}."
    told = f"'{name}' hangs on {words}{guess}: {figures}."
    if everywhere:
        return f"{told} By itself it predicts the label in every group, so it is something the model knows."
    return told


def _figures(route: Route, *, transplanted: bool, n: int) -> str:
    what = (
        "put into pictures of other classes, it turns {} of them into this one"
        if transplanted
        else "without it, {} of the pictures are taken for something else"
    )
    placebo = max(route.placebos.values())
    effect = route.effect
    return (
        f"{what.format(f'{route.rate:.0%}')}, a placebo up to {placebo:.0%} "
        f"(difference {effect.value:.2f} [{effect.low:.2f}, {effect.high:.2f}], n {n})"
    )


def _numbered(told: list[Tested]) -> list[Tested]:
    """Ids made different where two are the same."""
    seen: dict[str, int] = {}
    out = []
    for one in told:
        turn = seen[one.id] = seen.get(one.id, 0) + 1
        out.append(one if turn == 1 else replace(one, id=f"{one.id}-{turn}"))
    return out


def _check(
    images: Tensor,
    labels: Tensor,
    maps: Tensor,
    classes_of_maps: Tensor,
    at: Tensor,
    masks: Tensor | None,
    groups: Sequence[str] | None,
    sources: Sequence[Hashable] | None,
) -> None:
    count, size = len(images), tuple(images.shape[-2:])
    if images.dim() != 4 or images.shape[1] != 3 or not count:
        raise DataError(f"images must be (N, 3, H, W) with one picture at least, got {tuple(images.shape)}")
    if maps.dim() != 4 or tuple(maps.shape[2:]) != size:
        raise DataError(
            f"maps must be (M, K, {size[0]}, {size[1]}) as the pictures are, got {tuple(maps.shape)}"
        )
    if classes_of_maps.shape != maps.shape[:2] or len(at) != len(maps):
        raise DataError(f"{tuple(maps.shape[:2])} maps need as many classes, and a row of the pictures each")
    if len(at) and (int(at.min()) < 0 or int(at.max()) >= count):
        raise DataError(f"maps are of pictures {int(at.min())} to {int(at.max())}, and there are {count}")
    if masks is not None and tuple(masks.shape) != (count, *size):
        raise DataError(
            f"masks must be ({count}, {size[0]}, {size[1]}) as the pictures are, got {tuple(masks.shape)}"
        )
    for name, given in (("labels", labels), ("groups", groups), ("sources", sources)):
        if given is not None and len(given) != count:
            raise DataError(f"{count} pictures need as many {name}, got {len(given)}")
