"""The smallest ball in which each row is fooled: bisection over a grid, each row for itself."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from candling.errors import ParamsError
from candling.vision.adversarial.attacking import Progress, as_saved, device_of, rows_of, rules_of, shape_of
from candling.vision.adversarial.goals import Goal, Targeted
from candling.vision.adversarial.methods import LEVELS, Ball
from candling.vision.adversarial.walking import End, Row, Rules, Walk, attempts, let_walk

__all__ = ["Smallest", "every_pair", "levels_of", "probes_of", "smallest_epsilon"]

_PARTS = 16  # of the largest L2 ball
_HAIR = 1e-6


@dataclass(frozen=True, eq=False)
class Smallest:
    """The smallest epsilon at which each of R rows was fooled.

    epsilon: (R,) float64, one of `grid`; 0 where the picture was taken for it as it is, and inf where no ball
    of the grid was enough. grid: ascending, in the norm of `method`. images: (R, C, H, W), uint8 or float as
    in `Attacked`, of the walk at that epsilon, or at the largest where it was not enough. probabilities:
    (R, K) of these. evaluations: (R,) int64.
    """

    epsilon: Tensor
    grid: tuple[float, ...]
    images: Tensor
    probabilities: Tensor
    evaluations: Tensor
    method: Ball
    notes: tuple[str, ...] = ()

    @property
    def unreached(self) -> int:
        """Rows for which the largest epsilon was not enough."""
        return int(torch.isinf(self.epsilon).sum())

    def median(self) -> float:
        """Over all rows, those that were not reached counted as inf; so it is inf where half were not."""
        return _median(self.epsilon.numpy())

    def by_pair(self, labels: Tensor | Sequence[int], targets: Tensor | Sequence[int]) -> pd.DataFrame:
        """For each pair of classes: from, to, n, epsilon (median, may be inf) and unreached.

        Parameters
        ----------
        labels, targets
            (R,) classes of rows and of their goals.
        """
        table = pd.DataFrame(
            {
                "from": torch.as_tensor(labels).numpy(),
                "to": torch.as_tensor(targets).numpy(),
                "epsilon": self.epsilon.numpy(),
            }
        )
        groups = table.groupby(["from", "to"])["epsilon"]
        return groups.agg(
            n="size",
            epsilon=lambda some: _median(some.to_numpy()),
            unreached=lambda some: int(np.isinf(some).sum()),
        ).reset_index()

    def __repr__(self) -> str:
        return (
            f"Smallest({len(self.epsilon)} rows, median {self.median():.4g}, {self.unreached} not reached "
            f"within {self.grid[-1]:.4g}, {self.method})"
        )


def smallest_epsilon(
    model: nn.Module,
    images: Tensor,
    goal: Goal,
    method: Ball,
    *,
    grid: Sequence[float] | None = None,
    probability: float | None = None,
    rounded: bool = True,
    batch: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Smallest:
    """Find the smallest ball in which an attack succeeds, for each row by bisection over a grid.

    The largest ball comes first; what fools there may lie in a smaller one already, and every other walk
    starts from the last that fooled, brought into its ball. A row that is solved leaves and the next one
    enters. What is found is an upper bound of the smallest change that there is, as with every attack.

    Parameters
    ----------
    method
        Its epsilon is the largest ball; its length of steps, where not given, goes with each ball's radius.
    grid
        Ascending radii, of which the last is the largest ball; None: see `levels_of`.
    model, images, goal, probability, rounded, batch, seed, progress
        As for `attack`.

    Raises
    ------
    ParamsError
        If the grid is not ascending, or as for `attack`.
    DataError, ModelError
        As for `attack`.
    """
    radii = levels_of(method) if grid is None else tuple(float(radius) for radius in grid)
    ascending = all(a < b for a, b in zip(radii, radii[1:], strict=False))
    if not radii or not ascending or radii[0] <= 0 or not math.isfinite(radii[-1]):
        raise ParamsError(f"a grid of epsilon is ascending and above 0, not {radii}")
    # The first walk starts at the picture itself, which may be taken for the goal as it is.
    balls = [replace(method, epsilon=radius, random_start=False) for radius in radii]
    rules = rules_of(balls[0], probability, rounded=rounded, leave=True, seed=seed)
    device = device_of(model, images)
    rows = rows_of(images, goal, device, rounded=rounded)
    done = let_walk(
        model, [_bisect(row, balls, rules) for row in rows], goal,
        shape=shape_of(images), device=device, batch=batch, progress=progress,
    )  # fmt: skip
    ends: list[tuple[float, End]] = done.ends
    found = torch.stack([end.picture for _, end in ends])
    return Smallest(
        epsilon=torch.tensor([radius for radius, _ in ends], dtype=torch.float64),
        grid=radii,
        images=as_saved(found) if rounded else found.cpu(),
        probabilities=torch.stack([end.said.probabilities for _, end in ends]),
        evaluations=torch.tensor(done.evaluations),
        method=method,
        notes=done.notes,
    )


def levels_of(method: Ball) -> tuple[float, ...]:
    """Radii up to the method's: whole levels of 8 bits for L∞, sixteenths for L2."""
    if method.norm == "linf":
        whole = math.floor(method.epsilon * LEVELS + 1e-3)
        return tuple(level / LEVELS for level in range(1, whole + 1)) or (method.epsilon,)
    return tuple(method.epsilon * part / _PARTS for part in range(1, _PARTS + 1))


def probes_of(count: int) -> int:
    """How many balls of a grid of `count` a row walks through at the most."""
    return 1 + math.ceil(math.log2(count)) if count > 1 else 1


def every_pair(labels: Tensor | Sequence[int], classes: Sequence[int]) -> tuple[Tensor, Targeted]:
    """Each picture against each of the other classes.

    Parameters
    ----------
    labels
        (N,) classes of pictures.
    classes
        That they are to be taken for.

    Returns
    -------
    rows
        (R,) places of pictures, so that ``images[rows]`` are those to attack.
    goal
        Of R classes.
    """
    pairs = [
        (row, k) for row, label in enumerate(torch.as_tensor(labels).tolist()) for k in classes if k != label
    ]
    return torch.tensor([row for row, _ in pairs], dtype=torch.long), Targeted([k for _, k in pairs])


def _median(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """The median; inf where the middle is not finite."""
    ordered = np.sort(values)
    middle = ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]
    return float(middle.mean()) if len(middle) else math.nan


def _bisect(row: Row, balls: Sequence[Ball], rules: Rules) -> Walk[tuple[float, End]]:
    """The smallest ball of those in which the row was fooled."""
    radii = [ball.epsilon for ball in balls]
    best = yield from attempts(row, balls[-1], rules)
    if not best.fooled:
        return math.inf, best
    low, high = -1, _held(best, row, balls, len(balls) - 1)
    if high < 0:
        return 0.0, best
    while high - low > 1:
        middle = (low + high) // 2
        start = balls[middle].project(best.here, row.origin)
        end = yield from attempts(replace(row, start=start), balls[middle], rules)
        if end.fooled:
            best, high = end, _held(end, row, balls, middle)
        else:
            low = middle
    return radii[high], best


def _held(end: End, row: Row, balls: Sequence[Ball], most: int) -> int:
    """The place of the smallest ball that holds where a walk ended, -1 where it did not move."""
    distance = balls[most].distance(end.picture, row.origin)
    if distance == 0:
        return -1
    return min(most, bisect_left([ball.epsilon + _HAIR for ball in balls], distance))
