"""What the steps will ask of a model: images through it, counted as the steps' own code counts them.

Nothing is decoded and no model is run. A test runs the steps and holds each count to what happened.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from candling.data import Pictures, stratified
from candling.models import ModelSpec
from candling.vision.adversarial.smallest import levels_of, probes_of
from candling.vision.climbing import Climb, seen_together
from candling.vision.corruptions import CORRUPTIONS
from candling.vision.counterfactuals import associated_backgrounds, most_evaluations, pair_swaps
from candling.vision.factors import evaluations, most_outside
from candling.vision.isolation import Windows, object_shapley, window_size, windows_of
from candling.vision.isolation.grain import STEPS
from candling.vision.training import Schedule
from candling.vision.transforms import unseen_transforms
from candling.vision.trust import path_pictures
from tasks import (
    attack_model,
    compute_entanglement,
    generate_prototypes,
    isolate_features,
    measure_performance,
    test_counterfactuals,
    test_suspicions,
    visualize_channels,
)
from tasks.params import IsolationParams, Params, ScheduleParams
from tasks.pictures import audited_rows

__all__ = [
    "Count",
    "Growth",
    "Sight",
    "attacks",
    "channels",
    "counterfactuals",
    "entanglement",
    "isolation",
    "left_out",
    "performance",
    "prototypes",
    "robustness",
    "suspicions",
    "training",
]

_SHAPLEY_DONORS = int(inspect.signature(object_shapley).parameters["donors_per_image"].default)
_PROBES = 2  # of `check_differentiable`
_FOLDING = 4  # two pictures through two copies, by which `folded` sees that they say the same
_PATH_LAYERS = 2  # pictures by which `path_layers` finds them
_PICTURES_A_SWAP = 3  # of each class
_PLACES = 5  # of each class, that pictures are drawn of


@dataclass(frozen=True)
class Count:
    """Images through the model, and what else takes time or room.

    forward: evaluations. backward: evaluations with a gradient towards the image. trained: with gradients
    towards the weights. saved: of backward, what is spared by pictures that are small on the way, in
    evaluations of the whole size. blurred, corrupted: pictures to which that is done. written: pictures for
    the report.
    """

    forward: int = 0
    backward: int = 0
    trained: int = 0
    saved: float = 0.0
    blurred: int = 0
    corrupted: int = 0
    written: int = 0


@dataclass(frozen=True)
class Growth:
    """Sizes that pictures grow through, with their steps; asked: pictures by which they were found."""

    stages: Sequence[tuple[tuple[int, int], int]] = ()
    asked: int = 0


@dataclass(frozen=True)
class Sight:
    """What is known of an audit before it runs.

    splits: by role, labels, groups, masks and all else of each picture but its pixels; a mask or a picture
    that is there is a stand-in of one pixel. audited: indices of classes. size: of the pictures. channels:
    how many each layer has of which channels are shown. growth: how pictures that climb grow.
    """

    params: Params
    spec: ModelSpec
    differentiable: bool
    audited: tuple[int, ...]
    splits: Mapping[str, Pictures]
    size: tuple[int, int]
    channels: Mapping[str, int] = field(default_factory=dict)
    growth: Growth = Growth()


def prototypes(sight: Sight) -> Count:
    """A look at the gradient, heats and climbs; each prototype as it is, transformed and beside pictures."""
    if not sight.differentiable:
        return Count()
    settings = generate_prototypes.prototype_settings(sight.params.prototypes, sight.params.seed)
    pictures = sight.splits["eval"]
    rows = len(sight.audited) * settings.seeds
    views = len(unseen_transforms(torch.zeros(1, 3, 8, 8), torch.Generator()))
    forward = rows * (views + 1)
    if settings.seeds > 1 and len(sight.audited) > 1:
        forward += rows  # features, of which agreement is told
    labels = pictures.labels[pictures.labels >= 0]
    panel, natural = path_pictures(torch.tensor(sight.audited), labels)
    if len(panel):
        forward += _PATH_LAYERS + len(panel) + sum(settings.seeds + len(own) for own in natural.values())
    if pictures.clean is not None:
        own = [sum(label == k for label in pictures.labels.tolist()) for k in sight.audited]
        forward += sum(settings.seeds + 2 * count for count in own if count)
    climbed = _climbed(sight, settings, rows)
    return replace(climbed, forward=climbed.forward + forward, backward=climbed.backward + _PROBES)


def channels(sight: Sight) -> Count:
    """A look at the gradient and at each layer, every picture once with its gradient, and the climbs."""
    asked = sight.params.channels
    if asked is None or not sight.differentiable:
        return Count()
    settings = visualize_channels.channel_settings(sight.params, asked)
    pictures = len(_audited(sight, "eval"))
    strong = sum(min(asked.strongest, count) for count in sight.channels.values())
    climbed = _climbed(sight, settings, strong * settings.seeds)
    return replace(
        climbed,
        forward=climbed.forward + len(asked.layers) + strong * settings.seeds,
        backward=climbed.backward + _PROBES + pictures,
        written=climbed.written + strong * min(asked.pictures, pictures),
    )


def _climbed(sight: Sight, settings: Climb, rows: int) -> Count:
    """Rows that climb, the heats of their start and the blanks beside them among it, each to one picture."""
    stages = list(sight.growth.stages) or [(sight.size, settings.steps)]
    passes = [(size, steps, rows) for size, steps in stages]
    if settings.starts > 1:
        passes.append((stages[0][0], settings.heat, rows * settings.starts))
    backward, saved = 0, 0.0
    for (height, width), steps, count in passes:
        seen = seen_together((height, width), torch.device("cpu"))
        shown = steps * math.ceil(count / seen) * seen
        backward += shown
        saved += shown * (1 - height * width / (sight.size[0] * sight.size[1]))
    return Count(sight.growth.asked, backward, saved=saved, written=rows)


def _audited(sight: Sight, role: str) -> Pictures:
    pictures = sight.splits[role]
    return pictures.take(audited_rows(pictures, sight.audited))


def _sample(sight: Sight, count: int) -> Pictures:
    pictures = _audited(sight, "eval")
    return pictures.take(stratified(pictures, count, seed=sight.params.seed))


def entanglement(sight: Sight) -> Count:
    """The pictures of eval, which set the scale."""
    if not sight.differentiable:
        return Count()
    return Count(len(sight.splits["eval"]), written=compute_entanglement.WRITTEN)


def isolation(sight: Sight) -> Count:
    """Maps of a sample, curves beside controls, maps made again for the checks; Shapley values where had.

    At the most: how many finer windows of the hierarchical method are looked at only the model can tell.
    """
    settings = sight.params.isolation
    sample = _sample(sight, settings.images)
    donors = len(sight.splits["donors"]) if "donors" in sight.splits else 0
    each = _windows_seen(sight, settings, donors)
    curves = 2 + (2 + isolate_features.DRAWS) * 2 * (isolate_features.CURVE - 1)
    maps = len(sample) * min(1 + isolate_features.LIKELY, len(sight.spec.classes))
    forward = round(len(sample) * (2 + each + curves))
    few, calls = min(settings.checks, len(sample)), 1
    if few:
        again = 1 + isolate_features.DRAWS + 2 * sight.differentiable
        forward += round(few * (1 + isolate_features.DRAWS + again * (1 + each)))
        maps += few * again
        calls += again
    if settings.precision != "float32":
        forward += len(sample) + few * (calls - 1)
    slopes, tried = _pixels_seen(sight, settings)
    forward += maps * (slopes + tried) + calls * _FOLDING
    if sample.masks is not None and sample.clean is not None and donors:
        forward += len(sample) * (2 + min(_SHAPLEY_DONORS, donors)) + donors
    blurred = 0 if donors else len(sample)
    return Count(
        forward,
        backward=maps * slopes + calls * _PROBES * (slopes > 0),
        blurred=blurred,
        written=3 * min(settings.pictures, len(sample)),
    )


def _pixels_seen(sight: Sight, settings: IsolationParams) -> tuple[int, int]:
    """For one map: contexts in which there is a slope, and pictures by which its grain is chosen."""
    method = isolate_features.isolation_method(settings, None)
    if isinstance(method, Windows):
        return 0, 0
    slopes = method.contexts if sight.differentiable else 0
    maps = len(method.grains) * (2 if slopes else 1)
    return slopes, maps * STEPS * 2 if maps > 1 else 0


def _windows_seen(sight: Sight, settings: IsolationParams, donors: int) -> float:
    """Fills, and windows hidden and shown, of one picture."""
    method = isolate_features.isolation_method(settings, None)
    fills = min(method.donors_per_image, donors) if donors else 1
    if isinstance(method, Windows):
        windows: float = len(windows_of(sight.size, *window_size(sight.size, method.side, method.stride)))
    else:
        # They overlap by half, and a budget says how many of the finer ones are seen.
        cells = [method.cells << depth for depth in range(method.depths)]
        windows = sum((2 * min(one, *sight.size) + 1) ** 2 for one in cells)
        return fills + min(2 * fills * windows, max(method.most, 2 * fills * (2 * cells[0] + 1) ** 2))
    return fills * (1 + 2 * windows)


def suspicions(sight: Sight) -> Count:
    """The most there can be: regions removed and transplanted, factors turned up and down, and placebos.

    How many regions are suspected, and how many pictures are predicted as what, only the model can tell.
    """
    settings = sight.params.suspicions
    sample = len(_sample(sight, settings.images))
    masks = sight.splits["eval"].masks is not None
    forward = most_evaluations(sample, len(sight.audited)) + evaluations(sample, masks=masks)
    forward += most_outside(sample, _PLACES * len(sight.audited))
    return Count(forward, written=1 + _PLACES * len(sight.audited))


def counterfactuals(sight: Sight) -> Count:
    """Swaps that conflict and placebos, where there is all that they take; pictures with something removed.

    Every mask is taken to show something.
    """
    pictures = sight.splits["eval"]
    if pictures.masks is None or not sight.audited:
        return Count()
    each = max(1, sight.params.counterfactuals.images // len(sight.audited))
    forward = written = 0
    there = (pictures.masks > 0).flatten(1).any(1)
    if not test_counterfactuals.left_out(pictures, sight.splits):
        donors, history = sight.splits["donors"], sight.splits["train"]
        came_with = associated_backgrounds(history.labels.tolist(), history.environments)
        came_with = {k: environment for k, environment in came_with.items() if k in sight.audited}
        wanted = there & torch.isin(pictures.labels, torch.tensor(sight.audited))
        shown = torch.where(wanted, pictures.labels, -1).tolist()
        for conflict in (True, False):
            swaps = pair_swaps(
                shown, donors.environments, came_with,
                classes=len(sight.spec.classes), each=each, conflict=conflict,
            )  # fmt: skip
            forward += len(swaps)
            if conflict:
                labels = [shown[row] for row in swaps.objects]
                written += sum(min(_PICTURES_A_SWAP, labels.count(label)) for label in set(labels))
    for k in sight.audited:
        rows = min(int(((pictures.labels == k) & there).sum()), each)
        forward += rows * (1 if pictures.clean is None else 2)
    return Count(forward, written=written)


def performance(sight: Sight) -> Count:
    """Every picture of an audited class, also of those that are like the training data."""
    return Count(sum(len(_audited(sight, role)) for role in ("eval", "like_train") if role in sight.splits))


def robustness(sight: Sight) -> Count:
    """A sample as it is, and under each corruption at each severity."""
    settings = sight.params.robustness
    sample = _sample(sight, settings.images)
    corrupted = len(sample) * len(CORRUPTIONS) * len(settings.severities)
    return Count(len(sample) + corrupted, corrupted=corrupted)


def attacks(sight: Sight) -> Count:
    """The most there can be: a sample as it is, and all walks that a search may take, blanks among them.

    Which pictures are predicted rightly, and when each is fooled, only the model can tell.
    """
    if not sight.differentiable:
        return Count()
    settings = sight.params.attacks
    sample = len(_sample(sight, settings.images))
    method = attack_model.attack_method(settings)
    seen = seen_together(sight.size, torch.device("cpu"))
    walks = math.ceil(sample / seen) * seen * probes_of(len(levels_of(method)))
    return Count(sample, _PROBES + walks * (settings.steps + 1), written=3 * min(settings.pictures, sample))


def training(pictures: Pictures, settings: ScheduleParams) -> Count:
    """Batches of labelled pictures, of which some are short where there are fewer than a batch takes."""
    images = int((pictures.labels >= 0).sum())
    schedule = Schedule(**settings.model_dump(exclude_none=True))
    left = trained = 0
    for _ in range(schedule.steps):
        if left < schedule.batch:
            left += images
        taken = min(left, schedule.batch)
        left, trained = left - taken, trained + taken
    return Count(trained=trained)


def left_out(sight: Sight) -> dict[str, str]:
    """What cannot be measured and what would add it, as the steps will say it."""
    pictures = sight.splits["eval"]
    seeds = generate_prototypes.prototype_settings(sight.params.prototypes, sight.params.seed).seeds
    notes = {
        **generate_prototypes.left_out(pictures, sight.audited, seeds, differentiable=sight.differentiable),
        **visualize_channels.left_out(sight.params.channels, differentiable=sight.differentiable),
        **compute_entanglement.left_out(prototypes=sight.differentiable),
        **isolate_features.left_out(pictures, donors="donors" in sight.splits),
        **test_counterfactuals.left_out(pictures, sight.splits),
        **test_suspicions.left_out(masks=pictures.masks is not None, like_train="like_train" in sight.splits),
        **attack_model.left_out(differentiable=sight.differentiable),
        **measure_performance.left_out(_audited(sight, "eval"), sight.spec.head),
    }
    return {name.removeprefix("left_out."): sentence for name, sentence in notes.items()}
