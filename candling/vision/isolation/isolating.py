"""Isolation: which parts of an image a prediction uses, by one of several methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from candling.errors import DataError, ModelError, ParamsError
from candling.models import Batches, batch_size, log_odds, logits
from candling.models.quick import Precision, quickened
from candling.models.reading import nearest
from candling.vision.isolation.found import Asked, Found, Pair, Progress
from candling.vision.isolation.gradients import (
    Attention,
    GradCAM,
    IntegratedGradients,
    attend,
    cam,
    integrate,
)
from candling.vision.isolation.hierarchical import Hierarchical, descend
from candling.vision.isolation.mask import Mask, learn
from candling.vision.isolation.settings import check_choice
from candling.vision.isolation.windows import Windows, slide
from candling.vision.preflight import as_scores

__all__ = ["METHODS", "Isolation", "Method", "as_pictures", "isolate", "method_named"]

Method = Windows | Hierarchical | Mask | IntegratedGradients | GradCAM | Attention

METHODS: dict[str, type[Method]] = {
    "hierarchical": Hierarchical,
    "mask": Mask,
    "windows": Windows,
    "integrated-gradients": IntegratedGradients,
    "grad-cam": GradCAM,
    "attention": Attention,
}

_RUN: dict[type[Method], Callable[[Asked, Any], Found]] = {
    Hierarchical: descend,
    Mask: learn,
    Windows: slide,
    IntegratedGradients: integrate,
    GradCAM: cam,
    Attention: attend,
}
_TOP = 3


@dataclass(frozen=True, eq=False)
class Isolation:
    """Which parts of each image speak for and against classes.

    maps: float32 (N, K, H, W), evidence for the class above 0 and against it below, in the unit that the
    method says. classes: int64 (N, K). method: with its settings. evaluations: passes forward and back,
    each counted once for each picture in it; those that see to the model before are not. notes: sentences
    on what was done. odds: float32 (N, K) log-odds of the classes for the whole images. pairs: windows that
    depend on each other, where `Hierarchical` was asked for them.
    """

    maps: Tensor
    classes: Tensor
    method: Method
    evaluations: int
    odds: Tensor
    notes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


def method_named(method: str | Method, **settings: Any) -> Method:
    """A method with its settings.

    Parameters
    ----------
    method
        A name in `METHODS`, or a method whose settings are changed.

    Raises
    ------
    ParamsError
        If there is no such method or setting, or a value will not do.
    """
    if isinstance(method, str):
        name = method.casefold().replace("_", "-").replace(" ", "-")
        if name not in METHODS:
            raise ParamsError(f"there is no method {method!r}; {nearest(name, METHODS)}")
        method = METHODS[name]()
    if type(method) not in _RUN:
        raise ParamsError(f"a method is a name or one of {', '.join(one.__name__ for one in _RUN)}")
    known = [one.name for one in fields(method)]
    for setting in settings:
        if setting not in known:
            kind = type(method).__name__
            raise ParamsError(f"{kind} has no setting {setting!r}; {nearest(setting, known)}")
    return replace(method, **settings)


def isolate(
    model: nn.Module,
    images: Tensor,
    *,
    classes: Tensor | None = None,
    method: str | Method = "hierarchical",
    batch: int | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Isolation:
    """Evidence maps for each image.

    Parameters
    ----------
    model
        Images (N, C, H, W) in [0, 1] to logits. That it returns probabilities is noticed and noted.
    images
        float (N, C, H, W) in [0, 1], or uint8.
    classes
        int (N, K): for which classes, image by image; None: the three that are predicted for each.
    method
        A name in `METHODS`, or one of `Hierarchical`, `Mask`, `Windows`, `IntegratedGradients`, `GradCAM`
        and `Attention` with its settings.
    batch
        Images that go through the model at a time; None: as many as suit the device. Where memory runs out,
        half as many are tried.
    precision
        In which `Hierarchical`, `Mask` and `Windows` look: bfloat16 is for devices that multiply it, and
        rounds log-odds by about a hundredth. What is reported of whole images is float32 in any case.
    progress
        Told of images done, of all.

    Raises
    ------
    ParamsError
        If there is no such method, setting, precision or class.
    DataError
        If the images are of no such shape or range.
    ModelError
        If the model does not take them, returns NaN, or has not what the method needs.
    """
    chosen = method_named(method)
    pictures = as_pictures(images)
    model, notes = as_scores(model, (pictures.shape[1], pictures.shape[2], pictures.shape[3]))
    device = next((p.device for p in model.parameters()), pictures.device)
    pictures = pictures.to(device)
    check_choice("precision", precision, get_args(Precision))
    quick = model
    if isinstance(chosen, Hierarchical | Mask | Windows):
        quick = quickened(model, pictures[:2], precision)
    elif precision != "float32":
        raise ParamsError(f"{type(chosen).__name__} looks in float32 alone; leave precision out")
    gradients = isinstance(chosen, Mask | IntegratedGradients | GradCAM | Attention)
    batches = Batches(batch or batch_size(pictures.shape[2:], device, gradients=gradients))
    scored = logits(model, pictures, batch=batch)
    targets = _targets(classes, scored)
    odds = log_odds(model, scored).gather(1, targets)
    # What is hidden is held against the whole as the same arithmetic sees it.
    whole = odds if precision == "float32" else _odds(quick, pictures, targets, batches)
    asked = Asked(
        model=quick, images=pictures, classes=targets, odds=whole, batches=batches, progress=progress
    )
    found = _RUN[type(chosen)](asked, chosen)
    maps = found.maps.float().cpu()
    if not torch.isfinite(maps).all():
        raise ModelError(f"{type(chosen).__name__} found evidence that is NaN or infinite")
    passes = found.evaluations + len(pictures) * (1 if whole is odds else 2)
    return Isolation(
        maps, targets.cpu(), chosen, passes, odds.float().cpu(),
        notes=(*notes, *found.notes), pairs=found.pairs,
    )  # fmt: skip


def _odds(model: nn.Module, pictures: Tensor, targets: Tensor, batches: Batches) -> Tensor:
    return log_odds(model, logits(model, pictures, batch=batches)).gather(1, targets)


def as_pictures(images: Tensor) -> Tensor:
    """Images (N, C, H, W), uint8 or of floats in [0, 1], as float32 in [0, 1].

    Raises
    ------
    DataError
        If they are of another shape, type or range.
    """
    if not isinstance(images, Tensor) or images.dim() != 4 or not images.numel():
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise DataError(f"images must be a tensor (N, C, H, W) with one picture at least, not {shape}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise DataError(f"images must be uint8, or of floats in [0, 1], not {images.dtype}")
    fine = ((images >= 0) & (images <= 1)).flatten(1).all(1)  # NaN is neither
    if not fine.all():
        bad = int((~fine).nonzero()[0])
        low, high = images[bad].min(), images[bad].max()
        said = "NaN among its values" if low.isnan() else f"values from {low:.3g} to {high:.3g}"
        raise DataError(
            f"image {bad} has {said}; images are floats in [0, 1], before any normalisation, or uint8"
        )
    return images.float()


def _targets(classes: Tensor | None, scored: Tensor) -> Tensor:
    """Classes (N, K) int64 on the device of the scores."""
    rows, count = scored.shape
    if classes is None:
        return scored.topk(min(_TOP, count), 1).indices
    found = torch.as_tensor(classes)
    if found.dim() != 2 or len(found) != rows or not found.shape[1] or found.is_floating_point():
        raise ParamsError(
            f"classes must be whole numbers of shape ({rows}, K), for each image some, not {found.dtype} of "
            f"{tuple(found.shape)}"
        )
    outside = found[(found < 0) | (found >= count)]
    if outside.numel():
        raise ParamsError(f"there is no class {int(outside[0])}; the model has {count}, 0 to {count - 1}")
    return found.long().to(scored.device)
