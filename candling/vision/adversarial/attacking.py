"""Attacks on many rows: each a picture and its goal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from candling.errors import DataError, ParamsError
from candling.vision.adversarial.goals import Goal
from candling.vision.adversarial.methods import LEVELS, Ball, Method
from candling.vision.adversarial.walking import End, Row, Rules, attempts, let_walk

__all__ = ["Attacked", "attack", "device_of", "rows_of", "rules_of", "shape_of"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Attacked:
    """What became of R rows.

    images: (R, C, H, W), uint8 as they are saved, or floats in [0, 1] where nothing was rounded. fooled: (R,)
    bool. probabilities: (R, K) of these images. distance: (R,) float64 from the originals as the model saw
    them, in the method's norm. evaluations: (R,) int64, looks at each row's pictures, blanks beside them not
    counted. method: as it was configured. notes: what was found out about
    the model's outputs.
    """

    images: Tensor
    fooled: Tensor
    probabilities: Tensor
    distance: Tensor
    evaluations: Tensor
    method: Method
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Attacked({int(self.fooled.sum())} of {len(self.fooled)} fooled, {self.method}, "
            f"{int(self.evaluations.sum())} evaluations)"
        )


def attack(
    model: nn.Module,
    images: Tensor,
    goal: Goal,
    method: Method,
    *,
    probability: float | None = None,
    rounded: bool = True,
    leave: bool = True,
    start: Tensor | None = None,
    batch: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attacked:
    """Attack pictures; the model is left as it was found.

    Parameters
    ----------
    model
        A `Classifier`, or any module from images (N, C, H, W) in [0, 1] to scores; one that gives
        probabilities is seen to, and goes by their logarithm.
    images
        (R, C, H, W), uint8 or float in [0, 1].
    goal
        Of R classes.
    method
        Such as ``LinfPGD(epsilon=4 / 255)``.
    probability
        What fools must have this probability; None: it need only be the highest.
    rounded
        Whether the model sees pictures as they are saved, in 8 bits, the originals too; what fooled it then
        is what is returned, to the last bit.
    leave
        Whether rows that are fooled leave at once, and others take their place.
    start
        (R, C, H, W) in [0, 1], where the first walks start; None: at the images.
    batch
        Rows that the model sees in one pass, blanks among them where fewer are left. None: as many as suit
        the device. Rows do not depend on each other, to the last bit for the same `batch`.
    seed
        Of random starts, beside the row's picture and goal.
    progress
        Told of rows that have ended, and of all.

    Raises
    ------
    DataError
        If images are of another shape, type or range.
    ParamsError
        If the goal has other rows or classes, or a setting will not do.
    ModelError
        If the model is a black box, does not take the images, or gives no gradient.
    """
    rules = rules_of(method, probability, rounded=rounded, leave=leave, seed=seed)
    device = device_of(model, images)
    rows = rows_of(images, goal, device, rounded=rounded, start=start)
    done = let_walk(
        model, [attempts(row, method, rules) for row in rows], goal,
        shape=shape_of(images), device=device, batch=batch, progress=progress,
    )  # fmt: skip
    ends: list[End] = done.ends
    found = torch.stack([end.picture for end in ends])
    return Attacked(
        images=as_saved(found) if rounded else found.cpu(),
        fooled=torch.tensor([end.fooled for end in ends]),
        probabilities=torch.stack([end.said.probabilities for end in ends]),
        distance=torch.tensor(
            [method.distance(end.picture, row.origin) for end, row in zip(ends, rows, strict=True)],
            dtype=torch.float64,
        ),
        evaluations=torch.tensor(done.evaluations),
        method=method,
        notes=done.notes,
    )


def as_saved(images: Tensor) -> Tensor:
    """uint8 of images whose values are whole levels."""
    return (images * LEVELS).round().byte().cpu()


def shape_of(images: Tensor) -> tuple[int, int, int]:
    """Channels, height and width."""
    return images.shape[1], images.shape[2], images.shape[3]


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where the model is."""
    return next((p.device for p in model.parameters()), images.device)


def rules_of(method: Method, probability: float | None, *, rounded: bool, leave: bool, seed: int) -> Rules:
    """Rules of walks, once they are seen to make sense.

    Raises
    ------
    ParamsError
        If the probability is none, or the ball holds no other picture of 8 bits.
    """
    if probability is not None and not (
        isinstance(probability, int | float) and math.isfinite(probability) and 0 < probability < 1
    ):
        raise ParamsError(f"probability is {probability!r}; it must lie between 0 and 1")
    if rounded and isinstance(method, Ball) and method.epsilon * LEVELS < 1 - 1e-3:
        raise ParamsError(
            f"epsilon is {method.epsilon:.4g}, less than one of the {LEVELS} levels of a saved picture; give "
            f"1/{LEVELS} = {1 / LEVELS:.4f} or more"
        )
    return Rules(probability, rounded, leave, seed)


def rows_of(
    images: Tensor, goal: Goal, device: torch.device, *, rounded: bool, start: Tensor | None = None
) -> list[Row]:
    """Rows of pictures and a goal.

    Raises
    ------
    DataError
        If images or starts are of another shape, type or range.
    ParamsError
        If the goal has another number of rows.
    """
    unit = _unit(images, "pictures").to(device)
    if len(goal) != len(unit):
        raise ParamsError(f"{len(unit)} pictures need a goal of as many classes, not {len(goal)}")
    if rounded:
        unit = (unit * LEVELS).round() / LEVELS
    starts: Tensor | list[None] = [None] * len(unit)
    if start is not None:
        if start.shape != images.shape:
            raise DataError(f"starts are of shape {tuple(start.shape)}, pictures of {tuple(images.shape)}")
        starts = _unit(start, "starts").to(unit)
    classes, name = goal.classes.tolist(), type(goal).__name__
    return [Row(*row) for row in zip(unit, [name] * len(unit), classes, starts, strict=True)]


def _unit(images: Tensor, what: str) -> Tensor:
    """Images as float in [0, 1]; float64 stays what it is."""
    if images.dim() != 4 or 0 in images.shape:
        raise DataError(
            f"{what} to attack must be of shape (R, C, H, W), R at least 1, not {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        return images.float() / LEVELS
    if not images.is_floating_point():
        raise DataError(f"{what} to attack must be uint8 or float in [0, 1], not {images.dtype}")
    low, high = (float(bound) for bound in images.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise DataError(f"{what} to attack must lie in [0, 1]; these go from {low:.3g} to {high:.3g}")
    unit = images.detach()
    return unit if unit.dtype == torch.float64 else unit.float()
