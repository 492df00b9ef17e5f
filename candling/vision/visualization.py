"""Prototypes and feature visualizations in one call, of any model that a notebook or a command line names.

`prototypes` climbs classes and says which pictures to believe, `visualize` climbs whatever a text describes,
`layers` lists what there is to name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from candling.data import Pictures
from candling.errors import ModelError, ParamsError
from candling.models import Classifier, Layer, batch_size, evaluating, penultimate, recording, scores
from candling.models import layers as layers_of
from candling.models.running import refuse_black_box
from candling.vision.advance import Advance, Meter, line
from candling.vision.asking import (
    Model,
    Natural,
    Size,
    Start,
    changed,
    check_start,
    names_of,
    natural_of,
    opened,
    pair,
    places,
    prior_of,
    second_of,
    shape_of,
    start_of,
)
from candling.vision.climbing import Climb, Row
from candling.vision.kept import climb_kept
from candling.vision.objectives import Objective, evaluate, logit, parse
from candling.vision.preflight import class_count, preflight
from candling.vision.priors import Prior
from candling.vision.prototypes import Prototypes, generate_prototypes, over_grey
from candling.vision.results import Visualizations
from candling.vision.trust import PathSimilarity, Trust, agreement, judge, path_similarity, transfer

__all__ = ["Model", "Size", "Tell", "layers", "prototypes", "visualize"]

Tell = Callable[[Advance], None] | bool | None
"""Whom to tell how far a run is: a function, True for a line on stderr, or nobody."""


def layers(model: Model, size: Size | None = None, *, channels: int | None = None) -> list[Layer]:
    """All layers of a model with their shapes, by the names that `visualize` knows them by.

    Parameters
    ----------
    model
        As for `prototypes`.
    size, channels
        Of the picture that shapes are taken from; None: see `candling.models.input_shape`.

    Raises
    ------
    ModelError
        If the model cannot be read, is a black box, or does not take such a picture.
    """
    return layers_of(opened(model), pair(size), channels)


def prototypes(
    model: Model,
    classes: str | int | Iterable[str | int] | None = None,
    *,
    seeds: int | None = None,
    steps: int | None = None,
    settings: Climb | None = None,
    pictures: Tensor | Pictures | None = None,
    labels: Tensor | Sequence[int] | None = None,
    prior: Prior | Literal["natural", "fitted"] = "natural",
    second: Model | None = None,
    size: Size | None = None,
    channels: int | None = None,
    names: Sequence[str] = (),
    start: Start = None,
    folder: Path | str | None = None,
    batch: int | None = None,
    progress: Tell = None,
    **changes: Any,
) -> Visualizations:
    """Pictures that maximise the logits of classes, and how much each of them is to be believed.

    Parameters
    ----------
    model
        A `Classifier`, any module from images (N, C, H, W) in [0, 1] to scores (N, K) or (N, K, h, w), alone
        or within a tuple or mapping, or text as on the command line: a model's folder,
        ``torchvision:resnet18@weights.pt``, …. Left as it was found.
    classes
        Names or places of logits, one or several; None: all.
    seeds, steps
        Pictures a class, and steps for each; None: those of `settings`.
    settings, changes
        How to climb, `FOURIER` by default, and fields of it to change: ``robustness="l"``, ``diversity=0.5``.
    pictures, labels
        Natural pictures (N, C, H, W) at the size of the prototypes, uint8 or float in [0, 1], and the class
        of each, for path similarity; `candling.data.read_split` gives both in one.
    prior
        What pictures look like before anything is known of them: photographs, ``"fitted"`` on `pictures`, or
        one of your own.
    second
        A second model with the same classes in the same order, for transfer.
    size, channels
        Of the pictures. None: what the model says, else those of `prior`, `pictures` or `start`, else see
        `candling.models.input_shape`.
    names
        Of classes, in the order of the logits, where the model is no `Classifier`.
    start
        A picture (C, H, W) in [0, 1] or uint8 that all start from, brought to their size; None: noise;
        ``"equidistant"``: the picture at which all classes asked for have the same logit, or all of the
        model's if only one is asked for. A climb from there owes its way to the class alone.
    folder
        Where finished rows are kept, so that a run that was interrupted goes on where it was. Not the place
        for the result, which `Visualizations.save` writes elsewhere.
    batch
        Rows at a time, None: as many as suit the device. Results do not depend on it.
    progress
        A function of an `Advance`, True for a line on stderr, or None.

    Returns
    -------
    Visualizations
        Class by class, seed by seed.

    Raises
    ------
    ParamsError
        If there is no such class or setting, or what is given does not go together.
    DataError
        If the pictures are not of the prototypes' shape.
    ModelError
        If the model cannot be read, is a black box, does not take such pictures, or gives no gradient.
    """
    network = opened(model)
    climb = changed(settings, {"seeds": seeds, "steps": steps, **changes})
    natural = natural_of(pictures, labels)
    refuse_black_box(network, "its gradient")
    own = prior if isinstance(prior, Prior) else None
    shape = shape_of(network, size, channels, own, natural, start)
    check_start(start, shape, alpha=climb.alpha)
    count = class_count(network, shape)
    names = names_of(network, names, count)
    chosen = places(classes, names, count)
    if natural is not None:
        natural.check(shape, count)
    other = None if second is None else second_of(second, chosen, names, shape)
    statistics = prior_of(prior, natural, shape)
    objectives = [logit(c) for c in chosen]
    preflight(network, objectives, shape)
    picture = start_of(start, network, objectives, statistics, climb)
    meter = _meter(progress, len(chosen) * climb.seeds, climb)
    made = generate_prototypes(
        network, chosen, statistics, settings=climb, start=picture, batch=batch,
        folder=None if folder is None else Path(folder),
        finished=None if meter is None else meter.finished, progress=None if meter is None else meter.passes,
    )  # fmt: skip
    trust, path, notes = _judge(network, made, natural, other, alpha=climb.alpha, started=picture is not None)
    table = pd.DataFrame(
        {
            "class": made.classes.numpy(),
            "name": [names[c] for c in made.classes.tolist()],
            "seed": made.seeds.numpy(),
            "steps": made.steps.numpy(),
            "probability": _column(made.probability.mean(1) if count > 1 else None, len(made.images)),
            **{
                name: _column(None if trust is None else getattr(trust, name), len(made.images))
                for name in ("agreement", "path", "transfer")
            },
            "trust": _column(None if trust is None else trust.score, len(made.images)),
        }
    )
    return Visualizations(made.images, table, "prototypes", climb, notes, trust, path)


def visualize(
    model: Model,
    what: str | Objective | Sequence[str | Objective],
    *,
    seeds: int | None = None,
    steps: int | None = None,
    settings: Climb | None = None,
    prior: Prior | None = None,
    size: Size | None = None,
    channels: int | None = None,
    names: Sequence[str] = (),
    start: Start = None,
    folder: Path | str | None = None,
    batch: int | None = None,
    progress: Tell = None,
    **changes: Any,
) -> Visualizations:
    """Pictures that maximise what a text describes: a layer, a channel, a neuron, a token, a logit, a sum.

    Parameters
    ----------
    what
        Such as ``"layer3.channel[17]"``, ``"logit[zebra] - 0.5*logit[horse]"`` or ``"-layer3.neuron[4,2,2]"``
        (see `candling.vision.objectives.parse`), an `Objective`, or several.
    prior
        What pictures look like before anything is known of them; None: photographs.
    start
        As for `prototypes`; ``"equidistant"`` only where each objective has a class.
    model, seeds, steps, settings, size, channels, names, folder, batch, progress, changes
        As for `prototypes`. A model that is climbed by its layers alone need not have scores.

    Returns
    -------
    Visualizations
        Objective by objective, seed by seed.

    Raises
    ------
    ParamsError
        If a text is not understood, or there is no such class or setting.
    ModelError
        If there is no such layer, channel or token, or as for `prototypes`.
    """
    network = opened(model)
    climb = changed(settings, {"seeds": seeds, "steps": steps, **changes})
    refuse_black_box(network, "its gradient")
    known = network.classes if isinstance(network, Classifier) else tuple(names)
    asked = [what] if isinstance(what, str | Objective) else list(what)
    objectives = list({(o if isinstance(o, Objective) else parse(o, known)): None for o in asked})
    if not objectives:
        raise ParamsError("there is nothing to visualize; name a layer, a channel or another objective")
    shape = shape_of(network, size, channels, prior, start=start)
    check_start(start, shape, alpha=climb.alpha)
    preflight(network, objectives, shape)
    statistics = prior_of(prior or "natural", None, shape)
    picture = start_of(start, network, objectives, statistics, climb)
    rows = [
        Row(objective, seed)
        for objective in objectives
        for seed in range(climb.first, climb.first + climb.seeds)
    ]
    meter = _meter(progress, len(rows), climb)
    found = climb_kept(
        network, rows, statistics, climb, start=picture, batch=batch,
        folder=None if folder is None else Path(folder),
        finished=None if meter is None else meter.finished, progress=None if meter is None else meter.passes,
    )  # fmt: skip
    images = torch.stack([row.image for row in found])
    climbed = [row.objective for row in rows]
    values = _values(network, climbed, over_grey(images) if climb.alpha else images)
    grey = torch.full((1, *shape), 128, dtype=torch.uint8)
    still = int((values <= _values(network, climbed, grey.expand(len(rows), *shape))).sum())
    notes = () if not still else (
        f"{still} of {len(rows)} pictures excite what they climbed no more than plain grey does; "
        "try more steps, starts=8 to begin with the best of eight draws, or the layer before a rectifier",
    )  # fmt: skip
    table = pd.DataFrame(
        {
            "objective": [_named(objective, known) for objective in climbed],
            "seed": [row.seed for row in rows],
            "steps": [row.steps for row in found],
            "value": values.double().numpy(),
        }
    )
    return Visualizations(images, table, "visualizations", climb, notes)


def _meter(progress: Tell, rows: int, settings: Climb) -> Meter | None:
    if progress is None or progress is False:
        return None
    return Meter(rows, settings, line() if progress is True else progress)


def _column(values: Tensor | None, rows: int) -> Any:
    """A column of a table, NaN where it was not measured."""
    return torch.full((rows,), torch.nan).numpy() if values is None else values.double().numpy()


def _judge(
    network: nn.Module,
    made: Prototypes,
    natural: Natural | None,
    second: nn.Module | None,
    *,
    alpha: bool,
    started: bool,
) -> tuple[Trust | None, PathSimilarity | None, tuple[str, ...]]:
    """Trust in each prototype, and what it does not rest on."""
    count = made.logits.shape[1]
    if count == 1:
        return None, None, (
            "a single output has no probability, so that trust was not judged; a Classifier with the head "
            "binary reads it as two classes",
        )  # fmt: skip
    images = over_grey(made.images) if alpha else made.images
    missing, notes = [], []
    alike = None
    if started:
        missing.append("agreement (seeds that start from one picture say nothing by agreeing)")
    else:
        try:
            alike = agreement(penultimate(network, images.to(_device(network))).cpu(), made.classes)
            if alike is None:
                missing.append("agreement (two seeds of two classes would give it)")
        except ModelError as error:
            missing.append(f"agreement ({error})")
    path = None
    if natural is None or natural.labels is None:
        missing.append("path similarity, which tells the most (pictures with labels would give it)")
    else:
        labelled = natural.labels >= 0
        path = path_similarity(
            network, images, made.classes, natural.images[labelled], natural.labels[labelled]
        )
        if path.reason:
            notes.append(f"path similarity: {path.reason}")
    moved = None
    if second is None:
        missing.append("transfer (a second model would give it)")
    else:
        parts = zip(images.split(64), made.classes.split(64), strict=True)
        moved = torch.cat([transfer(second, part.float() / 255, own) for part, own in parts])
    if missing:
        notes.append(f"trust was judged without {', and without '.join(missing)}")
    multilabel = isinstance(network, Classifier) and network.head == "multilabel"
    chance = 0.5 if multilabel else 1 / count
    trust = judge(
        made.probability,
        chance=chance,
        agreement=alike,
        path=None if path is None else path.score,
        transfer=moved,
    )
    return trust, path, tuple(notes)


def _named(objective: Objective, classes: Sequence[str]) -> str:
    """Its text, as `parse` reads it, with names of classes in place of their numbers."""

    def name(found: re.Match[str]) -> str:
        place = int(found[2])
        plain = place < len(classes) and re.fullmatch(r'(?!\s|\d+$)[^\[\]"]+(?<!\s)', classes[place])
        return f"{found[1]}[{classes[place]}]" if plain and classes.count(classes[place]) == 1 else found[0]

    return re.sub(r"(?<![\w.])(logit|margin|probability)\[(\d+)\]", name, str(objective))


@torch.no_grad()
def _values(network: nn.Module, objectives: Sequence[Objective], images: Tensor) -> Tensor:
    """Each row's objective of each row's picture, (R,)."""
    device = _device(network)
    at_once = batch_size(images.shape[2:], device)
    head = network.head if isinstance(network, Classifier) else "softmax"
    wanted = {name for objective in objectives for name in objective.layers}
    by_output = any(not term.layer for objective in objectives for _, term in objective.terms)
    parts = []
    with evaluating(network), recording(network, wanted) as activations:
        for place in range(0, len(images), at_once):
            unit = images[place : place + at_once].to(device).float() / 255
            found = network(unit.contiguous(memory_format=torch.channels_last))
            outputs = scores(found) if by_output else unit
            some = objectives[place : place + at_once]
            parts.append(evaluate(some, outputs, activations, head=head).float().cpu())
    return torch.cat(parts)


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
