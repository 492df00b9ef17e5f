"""Hierarchical perturbation: coarse windows first, finer ones where those mattered, then single pixels.

After Cooper, Arandjelović and Harrison, "Believe the HiPe: Hierarchical Perturbation for Fast, Robust and
Model-Agnostic Explanations" (arXiv 2103.05108), from its description: windows of a depth are kept where
their evidence lies above the middle of its range, and halved at the next depth. Six things differ, each
because it measured better. A window is hidden in the presence of all others and shown in the absence of all
others, as in `Windows`, where the paper hides alone. Evidence against a class is kept beside evidence for
it. Windows far below the middle matter on photographs, so that all are kept that hold a fiftieth of the
range, the strongest first, as far as a number of passes goes. Depths are not added up: what a coarse window
holds is shared out among its pixels by what finer windows found there, so that a map is as sharp as its
finest windows. Where the model has slopes, they say what single pixels do (`contexts`), as much of it as
windows found. And each map is as smooth as it is most faithful (`grain`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from candling.errors import ModelError, ParamsError
from candling.models.running import check_differentiable
from candling.vision.isolation.contexts import slopes_in_contexts
from candling.vision.isolation.fills import FILLS, Fill, donor_rows, filled
from candling.vision.isolation.found import Asked, Found, Pair, odds_of
from candling.vision.isolation.grain import candidates, finest, weighed
from candling.vision.isolation.settings import check_choice, check_number, check_whole

__all__ = ["Grid", "Hierarchical", "descend", "shared_out"]

_TINY = 1e-20  # of squares
_PAIRED = 8  # windows of an image, each of which is paired with each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Hierarchical:
    """Hierarchical perturbation; evidence in log-odds a pixel.

    cells: windows along a side at the first depth; they overlap by half. depths: how many sizes of windows.
    keep: which windows are halved: those whose evidence, for or against, lies above this part of the range of
    their depth; 0.5 is the middle, as in the paper. most: passes that an image's windows may take, the first
    depth's in any case; windows where the last depth was strongest come first. fill: what hides a window, or
    several over which evidence is averaged (see `candling.vision.isolation.fills.Fill`). donors: clean
    backgrounds (D, C, H, W) in place of the fill, and donors_per_image how many of them for each. showing:
    whether windows are shown alone too. contexts: random parts of the picture in which slopes are taken, each
    a pass forward and one back for every class; 0 for windows alone, as for a model without slopes. grains:
    standard deviations of a last smoothing, in parts of the shorter side. Of the maps at all of them, with
    slopes and of slopes alone, the most faithful one is taken, for which each costs 16 passes a class. pairs:
    whether the strongest windows of the first depth are measured two at a time as well, for what counts only
    together (`Isolation.pairs`); their passes come on top.
    """

    cells: int = 2
    depths: int = 4
    keep: float = 0.02
    most: int = 300
    fill: Fill | tuple[Fill, ...] = "blur"
    donors: Tensor | None = None
    donors_per_image: int = 1
    showing: bool = True
    contexts: int = 96
    grains: tuple[float, ...] = (0.0, 0.03, 0.06, 0.1)
    pairs: bool = False

    def __post_init__(self) -> None:
        for name in ("cells", "depths", "most", "donors_per_image"):
            check_whole(name, getattr(self, name))
        check_number("keep", self.keep, 0, 1)
        check_whole("contexts", self.contexts, 0)
        if not self.grains:
            raise ParamsError("grains is empty; name one at least")
        for grain in self.grains:
            check_number("a grain", grain, 0, 0.5)
        if not self.fills:
            raise ParamsError("fill is empty; name one at least")
        for one in self.fills:
            check_choice("fill", one, FILLS)

    @property
    def fills(self) -> tuple[Fill, ...]:
        """The fill, or all of them."""
        return (self.fill,) if isinstance(self.fill, str) else tuple(self.fill)

    def __repr__(self) -> str:
        donors = "None" if self.donors is None else f"{len(self.donors)} pictures"
        return (
            f"Hierarchical(cells={self.cells}, depths={self.depths}, keep={self.keep}, most={self.most}, "
            f"fill={self.fill!r}, "
            f"donors={donors}, donors_per_image={self.donors_per_image}, showing={self.showing}, "
            f"contexts={self.contexts}, grains={self.grains}, pairs={self.pairs})"
        )


class Grid:
    """Windows of one depth: rows (R, H) and columns (C, W), bool; window r, c is where both are true."""

    def __init__(self, size: tuple[int, int], cells: int, device: torch.device) -> None:
        self.rows, self.columns = (_spans(side, cells).to(device) for side in size)
        self.area = self.rows.sum(1)[:, None] * self.columns.sum(1).float()

    def bounds(self, window: int) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of a window by its number, row by row."""
        row, column = divmod(window, len(self.columns))
        tall, wide = self.rows[row].nonzero().flatten(), self.columns[column].nonzero().flatten()
        return int(tall[0]), int(wide[0]), int(tall[-1]) + 1, int(wide[-1]) + 1

    def overlap(self, one: int, other: int) -> bool:
        """Whether two windows, by their numbers, share a pixel."""
        wide = len(self.columns)
        rows = self.rows[one // wide] & self.rows[other // wide]
        columns = self.columns[one % wide] & self.columns[other % wide]
        return bool(rows.any() and columns.any())

    def inside(self, values: Tensor) -> Tensor:
        """Mean over each window of values (N, H, W): (N, R, C)."""
        return self.rows.float() @ values @ self.columns.float().T / self.area

    def spread(self, values: Tensor) -> Tensor:
        """Sum over the windows that hold a pixel of values (..., R, C): (..., H, W)."""
        return self.rows.float().T @ values @ self.columns.float()

    def masks(self, row: Tensor, column: Tensor) -> Tensor:
        """Windows as masks, bool (M, H, W)."""
        return self.rows[row][:, :, None] & self.columns[column][:, None, :]


def _spans(side: int, cells: int) -> Tensor:
    """Half-overlapping spans of side / cells pixels that cover a side, bool (R, side)."""
    cells = min(cells, side)
    edges = torch.linspace(0, side, 2 * cells + 1).round().long()
    place = torch.arange(side)
    # Those at the ends are halves, so that all pixels lie in two.
    starts, stops = [0, *edges[:-2].tolist(), int(edges[-2])], [int(edges[1]), *edges[2:].tolist(), side]
    spans = [(place >= a) & (place < b) for a, b in zip(starts, stops, strict=True) if b > a]
    return torch.stack(spans)


def descend(asked: Asked, settings: Hierarchical) -> Found:
    """Evidence maps from coarse to fine, all images and classes of a depth in full batches."""
    count, _, height, width = asked.images.shape
    fills = _fills(asked.images, settings)
    look = _Look(asked, fills, settings.showing)
    strength = torch.ones(count, height, width, device=asked.images.device)
    spent = torch.full((count,), look.evaluations // count, device=asked.images.device)
    maps: Tensor | None = None
    coarser: Grid | None = None
    pairs: tuple[Pair, ...] = ()
    for depth in range(settings.depths):
        cells = settings.cells * 2**depth
        if depth and min(height, width) < cells:
            break  # windows were single pixels
        grid = Grid((height, width), cells, asked.images.device)
        active = grid.inside((strength > 0).float()) >= 0.5
        if depth:
            active &= _affordable(grid.inside(strength), active, (settings.most - spent) // look.each_window)
        if not active.any():
            break
        spent += look.each_window * active.sum((1, 2))
        effects = look.at(grid, active)
        evidence = effects.mean(2)
        coverage = grid.spread(active.float())[:, None]
        density = grid.spread(evidence / grid.area) / coverage.clamp_min(1)
        if maps is None or coarser is None:
            maps = density
            pairs = _paired(look, grid, effects) if settings.pairs else ()
        else:
            maps = shared_out(maps, density, coverage > 0, coarser)
        strength = grid.spread(_kept(evidence, active, settings.keep))
        coarser = grid
    assert maps is not None, "there is one depth at least"
    slopes, taken, notes = _slopes(asked, fills, settings.contexts)
    chosen, tried = finest(asked, candidates(maps, slopes, settings.grains), fills[:, 0])
    if slopes is not None:
        chosen = weighed(chosen, maps)
    asked.tell(count)
    return Found(chosen, look.evaluations + taken + tried, notes, pairs)


def _slopes(asked: Asked, fills: Tensor, contexts: int) -> tuple[Tensor | None, int, tuple[str, ...]]:
    """Evidence of slopes where the model has any, passes, and a note where it has none."""
    if not contexts:
        return None, 0, ()
    try:
        check_differentiable(asked.model, (asked.images.shape[2], asked.images.shape[3]))
    except ModelError as error:
        return None, 0, (f"windows alone, without slopes: {error}",)
    return *slopes_in_contexts(asked, fills, contexts), ()


def _fills(images: Tensor, settings: Hierarchical) -> Tensor:
    """Replacements (N, F, C, H, W)."""
    if settings.donors is None:
        return torch.stack([filled(images, one) for one in settings.fills], 1)
    donors = settings.donors
    if donors.dim() != 4 or donors.shape[1:] != images.shape[1:]:
        raise ParamsError(
            f"donors are of shape {tuple(donors.shape)}; they must be (D, C, H, W) with the pictures' "
            f"{tuple(images.shape[1:])}"
        )
    rows = [donor_rows(i, len(donors), settings.donors_per_image) for i in range(len(images))]
    return donors[torch.tensor(rows)].to(images)


class _Look:
    """Hides parts of pictures and shows them alone, and counts the passes that it takes.

    One pass serves every class of its picture.
    """

    def __init__(self, asked: Asked, fills: Tensor, showing: bool) -> None:
        self.asked, self.fills = asked, fills
        self.evaluations = 0
        self.each_window = fills.shape[1] * (1 + showing)
        self.empty: Tensor | None = None
        if showing:
            nothing = torch.zeros(1, *fills.shape[3:], dtype=torch.bool, device=fills.device)
            of = torch.arange(len(fills), device=fills.device)
            self.empty = self._odds(of, lambda rows: nothing.expand(len(rows), -1, -1), (True,))[:, :, 0]

    def _odds(self, of: Tensor, parts: Callable[[Tensor], Tensor], ways: tuple[bool, ...]) -> Tensor:
        """Log-odds (M, F, ways, K) of pictures `of` (M,) with parts of them hidden (False) or shown alone.

        `parts` gives the masks (rows, H, W) of rows.
        """
        each, total = self.fills.shape[1], len(of) * self.fills.shape[1] * len(ways)
        shown = torch.tensor(ways, device=of.device)

        def compose(batch: slice) -> Tensor:
            place = torch.arange(batch.start, batch.stop, device=of.device)
            row, rest = place // (each * len(ways)), place % (each * len(ways))
            seen = parts(row) == shown[rest % len(ways), None, None]
            return torch.where(
                seen[:, None], self.asked.images[of[row]], self.fills[of[row], rest // len(ways)]
            )

        self.evaluations += total
        wanted = self.asked.classes[of].repeat_interleave(each * len(ways), 0)
        return odds_of(self.asked, total, compose, wanted).view(len(of), each, len(ways), -1)

    def effects(self, of: Tensor, parts: Callable[[Tensor], Tensor]) -> Tensor:
        """What hiding a part takes and, where it is shown, what showing it alone gives: (M, ways, K)."""
        if self.empty is None:
            return (self.asked.odds[of][:, None] - self._odds(of, parts, (False,))[:, :, 0]).mean(1)[:, None]
        hidden, shown = self._odds(of, parts, (False, True)).unbind(2)
        return torch.stack([self.asked.odds[of][:, None] - hidden, shown - self.empty[of]], 2).mean(1)

    def at(self, grid: Grid, active: Tensor) -> Tensor:
        """Effects (N, K, ways, R, C) of the active windows (N, R, C), 0 of the others."""
        image, row, column = torch.nonzero(active, as_tuple=True)
        found = self.effects(image, lambda rows: grid.masks(row[rows], column[rows]))
        out = torch.zeros(*active.shape, *found.shape[1:], device=found.device)
        out[image, row, column] = found
        return out.permute(0, 4, 3, 1, 2)


def _paired(look: _Look, grid: Grid, effects: Tensor) -> tuple[Pair, ...]:
    """Pairs of the strongest windows that do not overlap, of each image, the most dependent first."""
    strength = effects.mean(2).abs()
    strength = (strength / strength.flatten(2).amax(2)[..., None, None].clamp_min(_TINY)).amax(1)
    chosen: list[tuple[int, int, int]] = []  # image, and two windows as numbers
    wide = len(grid.columns)
    for image, values in enumerate(strength):
        apart: list[int] = []
        for window in values.flatten().argsort(descending=True).tolist():
            if len(apart) < _PAIRED and not any(grid.overlap(window, other) for other in apart):
                apart.append(window)
        chosen += [(image, *pair) for pair in combinations(apart, 2)]
    if not chosen:
        return ()
    of, first, second = torch.tensor(chosen, device=effects.device).T

    def masks(rows: Tensor) -> Tensor:
        one, other = (grid.masks(w[rows] // wide, w[rows] % wide) for w in (first, second))
        return one | other

    joint = look.effects(of, masks)
    single = effects.permute(0, 3, 4, 2, 1).flatten(1, 2)
    excess = joint - single[of, first] - single[of, second]
    pairs = [
        Pair(
            image=image,
            label=int(look.asked.classes[image, k]),
            first=grid.bounds(a),
            second=grid.bounds(b),
            hidden=float(excess[row, 0, k]),
            shown=float(excess[row, 1, k]) if look.empty is not None else math.nan,
        )
        for row, (image, a, b) in enumerate(chosen)
        for k in range(excess.shape[2])
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair.strength))


def _kept(evidence: Tensor, active: Tensor, keep: float) -> Tensor:
    """How strong windows (N, R, C) are, from 0 to 1, for the class that they matter to the most.

    It is 0 where no class keeps them: below this part of the range of what matters to it.
    """
    size = evidence.abs()
    blank = ~active[:, None]
    low = size.masked_fill(blank, torch.inf).flatten(2).amin(2)[..., None, None]
    high = size.masked_fill(blank, 0).flatten(2).amax(2)[..., None, None]
    kept = (size >= low + keep * (high - low)) & ~blank
    # A class to which nothing matters, such as one that the model is blind for, keeps nothing.
    return torch.where(kept & (high > 0), size / high.clamp_min(_TINY), 0.0).amax(1)


def _affordable(strength: Tensor, active: Tensor, most: Tensor) -> Tensor:
    """The strongest of the active windows (N, R, C), as many as each image has passes left for (N,)."""
    order = strength.masked_fill(~active, -1).flatten(1).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(1) < most[:, None]).view_as(active)


def shared_out(coarse: Tensor, fine: Tensor, seen: Tensor, grid: Grid) -> Tensor:
    """Evidence of coarse windows given to their pixels by the square of finer evidence of the same sign.

    Each window's sum stays about what it was, as in a step of Richardson and Lucy's deconvolution. Squared,
    because a fine window that lies half on what matters holds half of its evidence, and would give that to
    pixels that hold nothing. A window in which finer ones found nothing of its sign stays as it was.

    Parameters
    ----------
    coarse, fine
        (N, K, H, W) evidence per pixel.
    seen
        bool (N, 1, H, W): where fine evidence was measured; elsewhere it is the coarse.
    grid
        The coarse windows.
    """
    guess = torch.where(seen, fine, coarse)
    out = torch.zeros_like(coarse)
    cover = grid.spread(torch.ones_like(grid.area))
    rows, columns = grid.rows.float(), grid.columns.float()
    for sign in (1, -1):
        mass, part = (sign * coarse).clamp_min(0), (sign * guess).clamp_min(0).square()
        had, has = rows @ mass @ columns.T, rows @ part @ columns.T
        empty = has <= _TINY
        scale = grid.spread(torch.where(empty, 0.0, had / has.clamp_min(_TINY))) / cover
        left = grid.spread(empty.float()) / cover
        out += sign * (part * scale + mass * left)
    return out
