"""What a person asks for, made into what the optimiser takes: model, settings, shape, classes, pictures."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from candling.data import Pictures
from candling.errors import DataError, ModelError, ParamsError
from candling.models import Classifier, ModelSource, input_shape, open_model
from candling.models.reading import nearest
from candling.vision.climbing import FOURIER, Climb
from candling.vision.objectives import Objective, place_named
from candling.vision.preflight import class_count
from candling.vision.priors import Prior, fit_prior, natural_prior
from candling.vision.starting import equidistant

__all__ = [
    "Model",
    "Natural",
    "Size",
    "Start",
    "changed",
    "check_start",
    "names_of",
    "natural_of",
    "opened",
    "pair",
    "places",
    "prior_of",
    "second_of",
    "shape_of",
    "start_of",
]

Model = nn.Module | ModelSource | str | Path
"""A `Classifier`, any module from images in [0, 1] to scores, or what `open_model` takes."""

Size = int | tuple[int, int]
"""Height and width in pixels, or the side of a square."""

Start = Tensor | Literal["equidistant"] | None
"""A picture that rows start from, the one that is equidistant between classes, or noise."""


@dataclass(frozen=True)
class Natural:
    """Natural pictures as they are held beside prototypes.

    images: (N, C, H, W). labels: (N,) int64, below 0 where there is none, or None. clean: the same pictures
    without their objects, or None.
    """

    images: Tensor
    labels: Tensor | None
    clean: Tensor | None

    def check(self, shape: tuple[int, int, int], count: int) -> None:
        """See that they are of the prototypes' shape and of the model's classes; DataError if not."""
        if tuple(self.images.shape[1:]) != shape:
            raise DataError(
                f"pictures are of shape {tuple(self.images.shape[1:])}, prototypes of {shape} (channels, "
                "height, width); bring the pictures to that size"
            )
        if self.labels is not None and int(self.labels.max()) >= count:
            raise DataError(
                f"a picture has the label {int(self.labels.max())}; the model has {count} classes"
            )


def opened(model: Model) -> nn.Module:
    """The module itself, or what text, a path or a source names.

    Raises
    ------
    ParamsError
        If it is none of these.
    ModelError
        If what is named cannot be read.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, str | Path | ModelSource):
        return open_model(model)[0]
    raise ParamsError(f"a model is a torch module or text that names one, not {type(model).__name__}")


def changed(settings: Climb | None, changes: Mapping[str, Any]) -> Climb:
    """Settings, `FOURIER` where none are given, with fields changed; fields of None are left as they are.

    Raises
    ------
    ParamsError
        If there is no such field, or its value will not do.
    """
    said = {name: value for name, value in changes.items() if value is not None}
    known = [one.name for one in fields(Climb)]
    for name in said:
        if name not in known:
            raise ParamsError(f"there is no setting {name!r}; {nearest(name, known)}")
    try:
        return replace(settings or FOURIER, **said)
    except TypeError as error:
        raise ParamsError(f"the settings {said} cannot be used: {error}") from error


def pair(size: Size | None) -> tuple[int, int] | None:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def shape_of(
    network: nn.Module,
    size: Size | None,
    channels: int | None,
    prior: Prior | None,
    natural: Natural | None = None,
    start: Start = None,
) -> tuple[int, int, int]:
    """Channels, height and width of the pictures to be made, by what is said first.

    That is `size` and `channels`, the prior, what the model says, natural pictures, the picture to start
    from, and what is usual.
    """
    whole = None
    if prior is not None:
        whole = prior.mean
    elif not isinstance(network, Classifier):
        picture = start if isinstance(start, Tensor) else None
        whole = picture if natural is None else natural.images
    if whole is not None:
        size = size or (whole.shape[-2], whole.shape[-1])
        # One to start from may have opacity, which is no channel of the model's.
        channels = channels or (None if whole is start else whole.shape[-3])
    return input_shape(network, pair(size), channels)


def prior_of(
    prior: Prior | Literal["natural", "fitted"], natural: Natural | None, shape: tuple[int, int, int]
) -> Prior:
    """The prior at the shape of the pictures.

    Raises
    ------
    ParamsError
        If there is no such prior, or nothing to fit it on.
    """
    size = (shape[1], shape[2])
    if isinstance(prior, Prior):
        if prior.channels != shape[0]:
            raise ParamsError(f"the prior has {prior.channels} channels, but pictures have {shape[0]}")
        return prior.resized(size)
    if prior == "natural":
        return natural_prior(size, shape[0])
    if prior != "fitted":
        raise ParamsError(f"there is no prior {prior!r}; it is 'natural', 'fitted' or a Prior")
    if natural is None:
        raise ParamsError("a prior is fitted on natural pictures, and there are none; give `pictures`")
    return fit_prior(natural.images, natural.clean)


def check_start(start: Start, shape: tuple[int, int, int], *, alpha: bool) -> None:
    """See that rows can start from it.

    Raises
    ------
    ParamsError
        If it is no picture and not the word.
    DataError
        If it is a picture of another shape.
    """
    if start is None or (isinstance(start, str) and start == "equidistant"):
        return
    if not isinstance(start, Tensor):
        raise ParamsError(f"there is no start {start!r}; it is a picture, 'equidistant' or None")
    if start.dim() != 3 or start.shape[0] not in (shape[0], shape[0] + alpha):
        raise DataError(
            f"the picture to start from is of shape {tuple(start.shape)}; "
            f"it must be ({shape[0]}, height, width)"
        )
    if start.dtype != torch.uint8 and not (
        start.is_floating_point() and bool(((start >= 0) & (start <= 1)).all())  # NaN is neither
    ):
        raise DataError("the picture to start from must be uint8, or of floats in [0, 1]")


def start_of(
    start: Start, network: nn.Module, objectives: Sequence[Objective], prior: Prior, settings: Climb
) -> Tensor | None:
    """The picture that rows start from; None: noise.

    One that is equidistant lies between all classes of the objectives, or between all of the model's where
    they have just one.

    Raises
    ------
    ParamsError
        If an objective has no class.
    ModelError
        If no such picture was found.
    """
    if not isinstance(start, str):
        return start
    if settings.parameterisation == "maco":
        raise ParamsError(
            "maco has magnitudes of its own, so that no climb can start from a picture that is equidistant; "
            "choose fourier or pixels"
        )
    for objective in objectives:
        if not objective.classes:
            raise ParamsError(
                f"a picture that is equidistant lies between classes, and {objective} has none; "
                "start from noise or from a picture"
            )
    classes = frozenset[int]().union(*(objective.classes for objective in objectives))
    device = next(network.parameters(), prior.mean).device
    if len(classes) == 1:
        classes = frozenset(range(class_count(network, (prior.channels, *prior.size))))
    return equidistant(network, sorted(classes), prior.to(device)).cpu()


def names_of(network: nn.Module, names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of classes in the order of the logits: a classifier's own, those given, or numbers.

    Raises
    ------
    ParamsError
        If they are not as many as there are classes.
    """
    if isinstance(network, Classifier):
        return network.classes
    if names and len(names) != count:
        raise ParamsError(f"the model has {count} classes, but {len(names)} are named")
    return tuple(names) or tuple(map(str, range(count)))


def places(classes: str | int | Iterable[str | int] | None, names: Sequence[str], count: int) -> list[int]:
    """Places of the classes asked for, each once; None: all.

    Raises
    ------
    ParamsError
        If there is no such class, several are called so, or none is asked for.
    """
    if classes is None:
        return list(range(count))
    asked = list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes]
    if not asked:
        raise ParamsError("no class is asked for; name one, or leave `classes` out for all")
    return list(dict.fromkeys(_place(one, names, count) for one in asked))


def _place(asked: str | int, names: Sequence[str], count: int) -> int:
    """The place of a class; text is a name of it or, where no class is called so, a number."""
    number = isinstance(asked, str) and asked.isascii() and asked.isdecimal()
    if isinstance(asked, str) and (asked in names or not number):
        return place_named(asked, names)
    try:
        place = int(asked) if isinstance(asked, str) else operator.index(asked)
    except TypeError as error:
        raise ParamsError(f"a class is a name or a whole number, not {asked!r}") from error
    if not 0 <= place < count:
        raise ParamsError(f"there is no class {place}; the model has {count}, 0 to {count - 1}")
    return place


def natural_of(pictures: Tensor | Pictures | None, labels: Tensor | Sequence[int] | None) -> Natural | None:
    """Natural pictures with their labels, if there are any.

    Raises
    ------
    ParamsError
        If there are labels and no pictures.
    DataError
        If pictures are not (N, C, H, W), or there is not a label for each.
    """
    if pictures is None:
        if labels is not None:
            raise ParamsError("there are labels without pictures; give `pictures` too")
        return None
    clean = None
    if isinstance(pictures, Pictures):
        labels = pictures.labels if labels is None else labels
        clean, pictures = pictures.clean, pictures.images
    if pictures.dim() != 4 or not len(pictures):
        raise DataError(f"pictures must be of shape (N, C, H, W), not {tuple(pictures.shape)}")
    classes = None if labels is None else torch.as_tensor(labels).long().cpu()
    if classes is not None and classes.shape != (len(pictures),):
        raise DataError(f"{len(pictures)} pictures need as many labels, not {tuple(classes.shape)}")
    return Natural(pictures, classes, clean)


def second_of(
    second: Model, chosen: Sequence[int], names: Sequence[str], shape: tuple[int, int, int]
) -> nn.Module:
    """The second model, opened and seen to have the chosen classes.

    Raises
    ------
    ModelError
        If it cannot be read, does not take the pictures, or has other classes.
    """
    network = opened(second)
    size = network.spec.image_size if isinstance(network, Classifier) else (shape[1], shape[2])
    try:
        count = class_count(network, (shape[0], *size))
    except ModelError as error:
        raise ModelError(f"the second model: {error}") from error
    numbers = tuple(map(str, range(max(count, len(names)))))
    theirs = network.classes if isinstance(network, Classifier) else numbers[:count]
    # Numbers are no names, but what stands in for them.
    named = theirs != numbers[:count] and tuple(names) != numbers[: len(names)]
    for c in chosen:
        if c >= count or (named and theirs[c] != names[c]):
            what = f"is {theirs[c]!r}" if c < count else "is not there"
            raise ModelError(
                f"class {c}, {names[c]!r}, {what} in the second model; give one with the same classes in the "
                "same order"
            )
    return network
