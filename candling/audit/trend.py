"""Records of one series lined up: checkpoints, hyper-parameter runs, releases; and where they change.

Verdict side: numbers of records go in, frozen data comes out. How a change is found:

*Is there one?* Values y_i with variance s²/w_i (w from n, s from the intervals) are compared before and
after each possible place, and along a straight line: T contrasts of unit variance, of which the largest is
looked at. Two noises could fake it, so both are held against it. Sampling: the intervals give s, p is the
normal tail times T (Bonferroni), then Holm (1979) over all measurements of the trend. Training: what
jumps from record to record beyond the sampling; s is then the median absolute first or second difference,
whichever is smaller (the first is robust to a few real jumps, the second to ramps), p the share of simulated
flat Gaussian series whose largest contrast in those units is larger. Fewer than five points cannot tell
their own noise, so there only the sampling counts. The model is white noise around a level: training noise
that wanders or is heavily skewed raises more alarms than the 5% that hold for sampling noise.

*Where?* Training curves ramp rather than jump. Weighted isotonic regression (Barlow et al. 1972, pool
adjacent violators) in the direction of the change gives a curve that is a step where the series is one.
The change lies between the last point at which this curve is on the first level's side of half-way
between its first and last level, and the first point after it whose level's interval is apart from the
first level's. It is accepted only when the pooled intervals before and after are apart. To each side of the
main change one more of the opposite direction is looked for, so that up and down again is told as both.

A rate that has a placebo is tested and located as its excess over the placebo, at least 0: a model that is
upset follows anything for a while, and only what beats the placebo is evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from candling.audit.record import AuditRecord, Measurement, Scope
from candling.errors import ParamsError

__all__ = [
    "TIME", "Association", "Change", "Line", "Point", "Trend", "associate", "find_changes", "holm",
    "isotonic", "line_up",
]  # fmt: skip

Array = NDArray[np.float64]
Key = tuple[str, tuple[tuple[str, str], ...]]  # id and scope
Direction = Literal["rises", "falls", "moves", "flat", "untested"]

# Coordinates along which one training advances: one record a value. All others are hyper-parameters.
TIME = ("step", "epoch", "iteration")
ORDER = "order"

# What a measurement has to beat before it says anything.
PLACEBO = {"background.follow_rate": "background.placebo_rate"}

ALPHA = 0.05
# Stricter, as training noise is less Gaussian than sampling noise.
_ALPHA_TRAINING = 0.03
# A change back is looked for on both sides of every change that was found.
_ALPHA_BACK = 0.005
_Z = 1.959963984540054
_OWN_NOISE = 5  # points from which a series can tell its own noise
_DRAWS = 4999
_PERMUTATIONS = 9999


@dataclass(frozen=True)
class Point:
    """A measurement at one place of the series; `value` is None where it was not measured."""

    x: float
    subject: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    status: str


@dataclass(frozen=True)
class Change:
    """A located change: after the record at `before` and no later than the one at `after`.

    Levels are pooled means of the points up to `before` and from `after` on, with 95% intervals.
    """

    direction: Literal["rises", "falls"]
    before: float
    after: float
    level_before: tuple[float, float, float]
    level_after: tuple[float, float, float]


@dataclass(frozen=True)
class Association:
    """Spearman's ρ of a hyper-parameter with a measurement; `p` by permutation, `p_holm` over all."""

    coordinate: str
    rho: float
    p: float
    p_holm: float
    n: int

    @property
    def significant(self) -> bool:
        """Whether it holds at 5% over all pairs of the trend."""
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Line:
    """One measurement along the series.

    `p` is the larger of the two p-values of the main change: sampling (Holm over the trend) and training
    noise; along a hyper-parameter it is that of its association; None where nothing could be tested.
    `changes` are in the order of the axis, and empty where the series is flat or drifts without any one
    place. `beyond` is the placebo whose excess was tested.
    """

    id: str
    scope: Scope
    points: tuple[Point, ...]
    direction: Direction
    p: float | None
    changes: tuple[Change, ...]
    associations: tuple[Association, ...]
    beyond: str | None = None

    @property
    def measured(self) -> tuple[Point, ...]:
        """The points that have a value."""
        return tuple(point for point in self.points if point.value is not None)

    @property
    def driver(self) -> Association | None:
        """The hyper-parameter that goes with it most, where any does."""
        found = [a for a in self.associations if a.significant]
        return max(found, key=lambda a: abs(a.rho)) if found else None


@dataclass(frozen=True)
class Trend:
    """A series: its axis, the value of each record on it, and one line a measurement and scope.

    `ordered` says whether the axis is one of time; `coordinates` are all that every record has and that
    vary; `notes` are sentences about what makes the series less than comparable.
    """

    audit: str
    kind: str
    axis: str
    ordered: bool
    subjects: tuple[str, ...]
    xs: tuple[float, ...]
    coordinates: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    def line(self, id: str, scope: Scope | None = None) -> Line | None:
        """The line with this id and exactly this scope, or None."""
        wanted = scope or {}
        return next((line for line in self.lines if line.id == id and line.scope == wanted), None)

    def at(self, x: float) -> str:
        """A place on the axis in words: ``step 40``, or the subject where only the order is known."""
        return self.subjects[self.xs.index(x)] if self.axis == ORDER else f"{self.axis} {x:g}"

    def where(self, change: Change) -> str:
        """``between step 40 and 60``."""
        if self.axis == ORDER:
            return f"between {self.at(change.before)} and {self.at(change.after)}"
        return f"between {self.at(change.before)} and {change.after:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


# -- Statistics ------------------------------------------------------------------------------------


def holm(ps: Sequence[float]) -> list[float]:
    """P-values (m,) adjusted by Holm's step-down (1979), in the order given."""
    out, most = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        most = max(most, min(1.0, (len(ps) - rank) * ps[index]))
        out[index] = most
    return out


def isotonic(values: Array, weights: Array) -> Array:
    """Non-decreasing (T,) closest to `values` (T,) in weighted least squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            level, mass, count = blocks.pop()
            total = mass + block[1]
            block = ((level * mass + block[0] * block[1]) / total, total, count + block[2])
        blocks.append(block)
    return np.concatenate([np.full(count, level) for level, _, count in blocks])


@dataclass(frozen=True)
class _Series:
    """Values in the order of the axis; `sigma`² / w is their sampling variance, None if not known."""

    x: Array
    y: Array
    w: Array
    sigma: float | None

    def part(self, start: int, stop: int) -> _Series:
        return _Series(self.x[start:stop], self.y[start:stop], self.w[start:stop], self.sigma)


def _series(points: Sequence[Point]) -> _Series:
    """Points as a series; weights come from n, as the interval of a common level would have them."""
    # An interval's own width follows its value (it is narrow at 0 and 1) and would favour the extremes.
    x = np.array([p.x for p in points], dtype=np.float64)
    y = np.array([p.value for p in points], dtype=np.float64)
    ns = [p.n for p in points]
    widths = [None if p.low is None or p.high is None else p.high - p.low for p in points]
    se = np.array([math.nan if width is None else width / (2 * _Z) for width in widths], dtype=np.float64)
    known = bool(np.isfinite(se).all())
    if all(n is not None and n > 0 for n in ns):
        w = np.array(ns, dtype=np.float64)
        # A score interval is narrower than its normal counterpart by this factor; a bootstrap's of few
        # samples is too narrow by about as much.
        se = se * np.sqrt(1 + _Z**2 / w)
    elif known and (se > 0).all():
        w = se**-2
    else:
        w = np.ones(len(y))
    w = w / w.mean()
    return _Series(x, y, w, float(np.sqrt((w * se**2).mean())) if known else None)


def _scores(y: Array, w: Array, x: Array) -> Array:
    """Contrasts (…, K + 1) of y (…, T): K steps between neighbours of different x, then the line.

    Each has the variance s² if y_i has s² / w_i.
    """
    mass = np.cumsum(w)
    sums = np.cumsum(w * y, axis=-1)
    cuts = np.flatnonzero(np.diff(x) > 0)
    left, right = mass[cuts], mass[-1] - mass[cuts]
    before, after = sums[..., cuts] / left, (sums[..., -1:] - sums[..., cuts]) / right
    steps = (after - before) * np.sqrt(left * right / mass[-1])
    rank = np.unique(x, return_inverse=True)[1].astype(np.float64)
    rank = rank - (w * rank).sum() / mass[-1]
    line = (w * rank * y).sum(-1, keepdims=True) / math.sqrt(float((w * rank**2).sum()))
    return np.concatenate([steps, line], axis=-1)


def _spread(y: Array, w: Array) -> Array:
    """s (…) from differences of y (…, T): their median size over that of a unit normal."""
    first = np.abs(np.diff(y, axis=-1)) / np.sqrt(1 / w[1:] + 1 / w[:-1])
    second = np.abs(np.diff(y, n=2, axis=-1)) / np.sqrt(1 / w[2:] + 4 / w[1:-1] + 1 / w[:-2])
    least = np.minimum(np.median(first, axis=-1), np.median(second, axis=-1))
    return np.asarray(least / 0.6744897501960817)


@lru_cache(maxsize=64)
def _null(w: tuple[float, ...], x: tuple[float, ...]) -> Array:
    """The largest contrast over the spread, for flat Gaussian series, sorted."""
    weights, axis = np.array(w), np.array(x)
    draws = max(999, min(_DRAWS, 2_000_000 // len(w)))
    # Its own generator: the same series gives the same p on every run.
    y = np.random.default_rng(0).standard_normal((draws, len(w))) / np.sqrt(weights)
    return np.sort(np.abs(_scores(y, weights, axis)).max(-1) / _spread(y, weights))


@dataclass(frozen=True)
class _Test:
    """What the largest contrast says: its sign, the p-values of both noises, and where the best cut is."""

    up: bool
    cut: int
    sampling: float | None
    training: float | None


def _test(series: _Series) -> _Test | None:
    if len(set(series.x.tolist())) < 2:
        return None
    scores = _scores(series.y, series.w, series.x)
    best = int(np.abs(scores).argmax())
    top = float(abs(scores[best]))
    step = int(np.abs(scores[:-1]).argmax())
    cut = int(np.flatnonzero(np.diff(series.x) > 0)[step]) + 1
    # The value itself sets the scale below which differences are rounding.
    if top <= 1e-12 * max(1.0, float(np.abs(series.y).max())):
        return _Test(True, cut, 1.0, 1.0)
    sampling = training = None
    if series.sigma is not None:
        z = top / series.sigma if series.sigma > 0 else math.inf
        sampling = min(1.0, len(scores) * math.erfc(z / math.sqrt(2)))
    if len(series.y) >= _OWN_NOISE:
        spread = float(_spread(series.y, series.w))
        null = _null(tuple(series.w.tolist()), tuple(series.x.tolist()))
        larger = len(null) - int(np.searchsorted(null, top / spread)) if spread > 0 else 0
        training = (1 + larger) / (1 + len(null))
    if sampling is None and training is None:
        return None
    return _Test(bool(scores[step] > 0), cut, sampling, training)


def _level(series: _Series, s: float, start: int, stop: int) -> tuple[float, float, float]:
    """Pooled mean of points [start, stop) with its interval."""
    w = series.w[start:stop]
    middle = float((w * series.y[start:stop]).sum() / w.sum())
    half = _Z * s / math.sqrt(float(w.sum()))
    return middle, middle - half, middle + half


def _apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return one[2] < other[1] or other[2] < one[1]


def _locate(series: _Series, start: int, stop: int, up: bool) -> tuple[Change, int, int] | None:
    """The change within points [start, stop), with the indices of its `before` and `after`."""
    part = series.part(start, stop)
    s = max(series.sigma or 0.0, float(_spread(part.y, part.w)) if len(part.y) >= _OWN_NOISE else 0.0)
    sign = 1.0 if up else -1.0
    # Points at the same x are one point of the curve.
    _, group = np.unique(part.x, return_inverse=True)
    mass: Array = np.bincount(group, part.w).astype(np.float64)
    curve = isotonic(sign * np.bincount(group, part.w * part.y) / mass, mass)
    half = (curve[0] + curve[-1]) / 2
    i = int((curve < half).sum()) - 1
    if i < 0:
        return None

    def pooled(level: float) -> tuple[float, float, float]:
        width = _Z * s / math.sqrt(float(mass[curve == level].sum()))
        return level, level - width, level + width

    first = pooled(float(curve[0]))
    j = next((j for j in range(i + 1, len(curve)) if pooled(float(curve[j]))[1] > first[2]), None)
    if j is None:
        return None
    before, after = int(np.flatnonzero(group == i)[-1]), int(np.flatnonzero(group == j)[0])
    levels = _level(part, s, 0, before + 1), _level(part, s, after, len(part.y))
    if not _apart(*levels):
        return None
    change = Change(
        direction="rises" if up else "falls", before=float(part.x[before]), after=float(part.x[after]),
        level_before=levels[0], level_after=levels[1],
    )  # fmt: skip
    return change, start + before, start + after


def _holds(test: _Test | None, alpha: float, sampling: float | None = None) -> bool:
    """Whether both noises are ruled out; `sampling` replaces the test's own p where it was corrected."""
    if test is None:
        return False
    given = test.sampling if sampling is None else sampling
    limits = ((given, alpha), (test.training, alpha * _ALPHA_TRAINING / ALPHA))
    return all(p < limit for p, limit in limits if p is not None)


def _changes(series: _Series, test: _Test) -> tuple[Change, ...]:
    start, stop = 0, len(series.y)
    sides = []
    for low, high in ((0, test.cut), (test.cut, len(series.y))):
        part = series.part(low, high)
        other = _test(part)
        found = None
        # Only the opposite direction: more of the same is part of the ramp.
        if other is not None and other.up != test.up and _holds(other, _ALPHA_BACK):
            found = _locate(series, low, high, other.up)
        sides.append(found)
    if sides[0] is not None:
        start = sides[0][2]
    if sides[1] is not None:
        stop = sides[1][1] + 1
    main = _locate(series, start, stop, test.up)
    if main is None:
        return ()
    return tuple(found[0] for found in (sides[0], main, sides[1]) if found is not None)


def find_changes(
    points: Sequence[Point], *, sampling: float | None = None
) -> tuple[Direction, float | None, tuple[Change, ...]]:
    """Direction, p and located changes of points in the order of the axis; see the module.

    Parameters
    ----------
    points
        In the order of x; those without a value are left out.
    sampling
        The p-value of the sampling noise, corrected for other series; by default that of this one.

    Returns
    -------
    tuple
        ``untested``, None and no changes where there are fewer than two points, or fewer than five
        without intervals.
    """
    measured = [point for point in points if point.value is not None]
    if len(measured) < 2:
        return "untested", None, ()
    series = _series(measured)
    test = _test(series)
    if test is None:
        return "untested", None, ()
    p = max(p for p in (test.sampling if sampling is None else sampling, test.training) if p is not None)
    if not _holds(test, ALPHA, sampling):
        return "flat", p, ()
    changes = _changes(series, test)
    ways = {change.direction for change in changes} or {"rises" if test.up else "falls"}
    direction: Direction = "moves" if len(ways) > 1 else "rises" if "rises" in ways else "falls"
    return direction, p, changes


def _ranks(values: Array) -> Array:
    """Ranks (N,) from 1; ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], dtype=np.float64)


@lru_cache(maxsize=16)
def _shuffles(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permuted(np.tile(np.arange(n), (_PERMUTATIONS, 1)), axis=1)


def associate(x: Array, y: Array) -> tuple[float, float]:
    """Spearman's ρ of x (N,) and y (N,) and its two-sided p by 9999 permutations.

    (0, 1) where either does not vary or there are fewer than three points.
    """
    if len(x) < 3:
        return 0.0, 1.0
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float((a**2).sum() * (b**2).sum()))
    if norm == 0:
        return 0.0, 1.0
    rho = float(a @ b) / norm
    others = b[_shuffles(len(b))] @ a / norm
    # The hair makes arrangements that are equal in exact arithmetic count as equal.
    return rho, (1 + int((np.abs(others) >= abs(rho) - 1e-12).sum())) / (1 + _PERMUTATIONS)


# -- Lining up -------------------------------------------------------------------------------------


def _name(record: AuditRecord, place: int) -> str:
    return f"record {place + 1} ({record.subject})"


def _check(records: Sequence[AuditRecord]) -> None:
    if len(records) < 2:
        raise ParamsError(
            f"a trend needs at least two records, got {len(records)}; "
            "name more records, or a folder that holds several"
        )
    for what in ("audit", "kind"):
        for place, record in enumerate(records[1:], 1):
            one, other = getattr(records[0], what), getattr(record, what)
            if one != other:
                raise ParamsError(
                    f"{_name(records[0], 0)} is of {what} {one!r} and {_name(record, place)} of {other!r}; "
                    "give records of one series"
                )


def _axis(records: Sequence[AuditRecord], by: str | None) -> tuple[str, tuple[str, ...]]:
    """The axis and all coordinates that every record has and that vary."""
    names = sorted({name for record in records for name in record.coordinates})
    partial = {
        name: next(i for i, r in enumerate(records) if name not in r.coordinates)
        for name in names
        if any(name not in record.coordinates for record in records)
    }
    varying = tuple(
        name
        for name in names
        if name not in partial and len({record.coordinates[name] for record in records}) > 1
    )
    if by is None:
        for name, place in partial.items():
            raise ParamsError(
                f"{_name(records[place], place)} has no coordinate {name!r} and others have; "
                "leave it out, or choose another coordinate with --by"
            )
        preferred = [name for name in TIME if name in varying] + list(varying)
        return (preferred[0] if preferred else ORDER), varying
    if by == ORDER:
        return by, varying
    if by in partial:
        place = partial[by]
        raise ParamsError(f"{_name(records[place], place)} has no coordinate {by!r}; leave it out")
    if by not in varying:
        known = f"choose one of {', '.join(varying)}" if varying else "leave --by out to use the order given"
        problem = "is the same in all records" if by in names else "is a coordinate of no record"
        raise ParamsError(f"{by!r} {problem}; {known}")
    return by, varying


def _positions(records: Sequence[AuditRecord], axis: str) -> list[float]:
    if axis == ORDER:
        return [float(place + 1) for place in range(len(records))]
    xs = [record.coordinates[axis] for record in records]
    if axis in TIME:
        seen: dict[float, int] = {}
        for place, x in enumerate(xs):
            if x in seen:
                raise ParamsError(
                    f"{_name(records[seen[x]], seen[x])} and {_name(records[place], place)} are both at "
                    f"{axis} {x:g}; give the records of one training, or choose another coordinate with --by"
                )
            seen[x] = place
    return xs


def _notes(records: Sequence[AuditRecord]) -> Iterator[str]:
    keys = sorted({key for record in records for key in record.digests} - {"model"})
    differ = [key for key in keys if len({record.digests.get(key) for record in records}) > 1]
    if differ:
        yield f"the records differ in {', '.join(differ)}: a change may come from there, not from the model"
    if len({record.classes for record in records}) > 1:
        yield "the records do not have the same classes"
    failed = [record.subject for record in records if record.errors]
    if failed:
        yield f"a step failed in {', '.join(failed)}; what it would have measured is missing there"


def _point(x: float, record: AuditRecord, found: Measurement | None) -> Point:
    if found is None:
        return Point(x, record.subject, None, None, None, None, "missing")
    value = None if found.status == "error" else found.value
    return Point(x, record.subject, value, found.low, found.high, found.n, found.status)


def _beyond(point: Point, placebo: Point) -> Point:
    """The excess over the placebo, at least 0, with an interval as wide as the difference's.

    Newcombe's square-and-add interval of two independent rates (1998, Statistics in Medicine 17, method 10).
    """
    value, low, high = point.value, point.low, point.high
    base, base_low, base_high = placebo.value, placebo.low, placebo.high
    if value is None or base is None:
        return replace(point, value=None, low=None, high=None)
    excess = max(0.0, value - base)
    if low is None or high is None or base_low is None or base_high is None:
        return replace(point, value=excess, low=None, high=None)
    down, up = math.hypot(value - low, base_high - base), math.hypot(high - value, base - base_low)
    return replace(point, value=excess, low=excess - down, high=excess + up)


def _tested(points: Mapping[Key, Sequence[Point]]) -> dict[Key, list[Point]]:
    """What is tested of each line: its own values, or their excess over the placebo where it was measured."""
    out = {}
    for (id, scope), line in points.items():
        placebo = points.get((PLACEBO.get(id, ""), scope), ())
        known = any(point.value is not None for point in placebo)
        pairs = zip(line, placebo, strict=True) if known else ()
        out[id, scope] = [_beyond(*pair) for pair in pairs] if known else list(line)
    return out


def _associations(
    lines: Mapping[Key, Sequence[Point]],
    records: Sequence[AuditRecord],
    coordinates: Sequence[str],
) -> list[tuple[Association, ...]]:
    """For each line, each coordinate's association, Holm-corrected over all of them."""
    raw = []
    for points in lines.values():
        there = [i for i, point in enumerate(points) if point.value is not None]
        y = np.array([points[i].value for i in there], dtype=np.float64)
        for name in coordinates:
            x = np.array([records[i].coordinates[name] for i in there], dtype=np.float64)
            raw.append((name, *associate(x, y), len(there)))
    adjusted = holm([p for _, _, p, _ in raw])
    flat = [
        Association(name, rho, p, fixed, n) for (name, rho, p, n), fixed in zip(raw, adjusted, strict=True)
    ]
    k = len(coordinates)
    return [tuple(flat[i * k : (i + 1) * k]) for i in range(len(lines))]


def _of_runs(
    own: Association, changes: tuple[Change, ...]
) -> tuple[Direction, float | None, tuple[Change, ...]]:
    """Runs differ in more than the axis: a change is put down to it only where it is associated."""
    if own.n < _OWN_NOISE:
        return "untested", None, ()
    if not own.significant:
        return "flat", own.p_holm, ()
    direction: Direction = "rises" if own.rho > 0 else "falls"
    return direction, own.p_holm, tuple(change for change in changes if change.direction == direction)


def line_up(records: Sequence[AuditRecord], by: str | None = None) -> Trend:
    """Line up records of one series and find where each measurement changes, or what drives it.

    Parameters
    ----------
    records
        Of one audit and kind. In any order if they have coordinates, else in the order of the series.
    by
        The coordinate to line up along, or ``order``; by default the one that all records have and that
        varies, `step` first, and the order given where there is none.

    Raises
    ------
    ParamsError
        Fewer than two records, different audits or kinds, a coordinate that some lack, two records at one
        step.
    """
    _check(records)
    axis, varying = _axis(records, by)
    positions = _positions(records, axis)
    order = sorted(range(len(records)), key=lambda i: positions[i])
    records, xs = [records[i] for i in order], [positions[i] for i in order]
    tables = [{(m.id, tuple(sorted(m.scope.items()))): m for m in record.measurements} for record in records]
    keys = dict.fromkeys(key for table in tables for key in table)
    points = {
        key: [_point(x, r, table.get(key)) for x, r, table in zip(xs, records, tables, strict=True)]
        for key in keys
    }
    ordered = axis in (*TIME, ORDER)
    # Along time no hyper-parameter is asked for: the records of one training share them.
    asked = () if ordered else tuple(name for name in varying)
    tested = _tested(points)
    associations = _associations(tested, records, asked)
    tests = {}
    for key, line in tested.items():
        measured = [point for point in line if point.value is not None]
        test = _test(_series(measured)) if len(measured) > 1 else None
        if test is not None and test.sampling is not None:
            tests[key] = test.sampling
    sampling = dict(zip(tests, holm(list(tests.values())), strict=True))
    lines = []
    for (key, line), found in zip(points.items(), associations, strict=True):
        direction, p, changes = find_changes(tested[key], sampling=sampling.get(key))
        own = next((a for a in found if a.coordinate == axis), None)
        if own is not None:
            direction, p, changes = _of_runs(own, changes)
        id, scope = key
        beyond = None if tested[key] == line else PLACEBO[id]
        lines.append(Line(id, dict(scope), tuple(line), direction, p, changes, found, beyond))
    return Trend(
        audit=records[0].audit, kind=records[0].kind, axis=axis, ordered=ordered,
        subjects=tuple(record.subject for record in records), xs=tuple(xs), coordinates=varying,
        lines=tuple(lines), notes=tuple(_notes(records)),
    )  # fmt: skip
