"""A trend for readers: a table on a terminal, CSV, and a page with a plot of each measurement."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from candling.audit.measurements import REGISTRY, MeasurementType
from candling.audit.trend import Association, Line, Point, Trend
from candling.report.pages import asset, templates
from candling.report.text import clean
from candling.writing import write_whole

__all__ = ["is_simple", "render_csv", "render_page", "render_trend", "sparkline", "write_page"]

_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK = 24  # characters; longer series are averaged
_ARROWS = {"rises": "↑", "falls": "↓", "moves": "↕", "flat": "–", "untested": "?"}
# The plot's own units; the page scales it.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360.0, 190.0, 40.0, 10.0, 10.0, 26.0


# -- Words that all forms share ---------------------------------------------------------------------


def is_simple(line: Line) -> bool:
    """Whether a line is one of those shown unasked: overall, of the worst, or of one class or group."""
    return not line.scope or (len(line.scope) == 1 and next(iter(line.scope)) in ("class", "group"))


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value + 0.0:.3g}".replace("-", "−")


def _scope(line: Line) -> str:
    # `accuracy.group (group tank/grass)` says group twice.
    return ", ".join(
        value if line.id.endswith(f".{key}") else f"{key} {value}" for key, value in line.scope.items()
    )


def _kind(line: Line) -> MeasurementType:
    return REGISTRY[line.id]


def _judgement(line: Line) -> str:
    """``better`` or ``worse`` where the registry knows which way that is."""
    wanted = {"higher": "rises", "lower": "falls"}.get(_kind(line).better)
    if wanted is None or line.direction not in ("rises", "falls"):
        return ""
    return "better" if line.direction == wanted else "worse"


def _where(trend: Trend, line: Line) -> str:
    if line.changes:
        many = len(line.changes) > 1
        places = [
            f"{change.direction} {trend.where(change)}" if many else trend.where(change)
            for change in line.changes
        ]
        return ", ".join(places) + (" (beyond the placebo)" if line.beyond else "")
    if line.direction == "flat":
        return "no change beyond chance"
    if line.direction == "untested":
        count = len(line.measured)
        return f"{count} of {len(line.points)} measured: too few to tell" if count < 2 else "too few to tell"
    return "drifts: no one place"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _driver(association: Association | None) -> str:
    if association is None:
        return "none beyond chance"
    rho = f"{association.rho:+.2f}".replace("-", "−")
    return f"{association.coordinate} (ρ = {rho}, {_p(association.p_holm)})"


def _pooled(points: Sequence[Point]) -> list[tuple[float, float | None]]:
    """One value a place: the mean of replicates, None where nothing was measured."""
    out = []
    for x in sorted({point.x for point in points}):
        values = [point.value for point in points if point.x == x and point.value is not None]
        out.append((x, sum(values) / len(values) if values else None))
    return out


def _range(line: Line) -> tuple[float, float]:
    """The registry's range where it is finite, so that noise does not look like a cliff; else the data's."""
    kind = _kind(line)
    if math.isfinite(kind.low) and math.isfinite(kind.high):
        return kind.low, kind.high
    ends = [end for p in line.measured for end in (p.value, p.low, p.high) if end is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    low = kind.low if math.isfinite(kind.low) else low
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def sparkline(line: Line, cells: int = _SPARK) -> str:
    """The line in at most `cells` characters, on the measurement's own range; `·` is nothing measured."""
    values = [value for _, value in _pooled(line.points)]
    low, high = _range(line)
    cells = min(len(values), cells)
    out = []
    for cell in range(cells):
        part = values[cell * len(values) // cells : (cell + 1) * len(values) // cells]
        known = [value for value in part if value is not None]
        if not known:
            out.append("·")
            continue
        share = (sum(known) / len(known) - low) / (high - low)
        out.append(_BLOCKS[min(len(_BLOCKS) - 1, max(0, int(share * len(_BLOCKS))))])
    return "".join(out)


def _first_last(line: Line) -> str:
    known = [value for _, value in _pooled(line.points) if value is not None]
    return f"{_figure(known[0])} → {_figure(known[-1])}" if known else "–"


def _heading(trend: Trend) -> str:
    along = "in the order given" if trend.axis == "order" else f"along {trend.axis}"
    ends = f"{trend.at(trend.xs[0])} to {trend.xs[-1]:g}"
    if trend.axis == "order":
        ends = f"{trend.at(trend.xs[0])} to {trend.at(trend.xs[-1])}"
    return f"{trend.audit}: {len(trend.xs)} records {along}, {ends}"


# -- Terminal and CSV --------------------------------------------------------------------------------


def render_trend(trend: Trend, lines: Sequence[Line], *, terminal: bool = False, width: int = 80) -> str:
    """The chosen lines of a trend as a table, a line a measurement.

    Parameters
    ----------
    lines
        Of `trend`, in the order to show.
    terminal
        Colours and rules, for a terminal; plain otherwise.
    width
        Columns to keep the table within.
    """
    drivers = any(line.associations for line in lines)
    table = Table(box=box.SIMPLE if terminal else None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    # An id is what people search for and copy: it is not folded.
    least = min(width // 3, max((len(line.id) for line in lines), default=0))
    table.add_column("measurement", overflow="fold", min_width=least)
    table.add_column("first → last", no_wrap=True)
    table.add_column("series", no_wrap=True)
    table.add_column("direction", no_wrap=True)
    table.add_column("changes", overflow="fold")
    if drivers:
        table.add_column("driven by", overflow="fold")
    cells_of_spark = _SPARK if width >= 110 and not drivers else _SPARK // 2
    for line in lines:
        judged = _judgement(line)
        style = {"worse": "bold red", "better": "green"}.get(judged, "")
        name = line.id + (f" ({_scope(line)})" if line.scope else "")
        direction = f"{_ARROWS[line.direction]} {line.direction}" + (f", {judged}" if judged else "")
        cells = [name, _first_last(line), sparkline(line, cells_of_spark), direction, _where(trend, line)]
        if drivers:
            cells.append(_driver(line.driver))
        table.add_row(*(Text(clean(cell), style=style if i == 3 else "") for i, cell in enumerate(cells)))
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=width, highlight=False, emoji=False, legacy_windows=False
    )
    console.print(Text(clean(_heading(trend))), soft_wrap=True)
    console.print(table)
    for note in trend.notes:
        console.print(Text(clean(f"note: {note}"), style="yellow"), soft_wrap=True)
    return "\n".join(row.rstrip() for row in out.getvalue().splitlines()) + "\n"


def render_csv(trend: Trend, lines: Sequence[Line]) -> str:
    """One row a measured point: measurement, scope, axis, x, subject, value, low, high, n, status."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("measurement", "scope", "axis", "x", "subject", "value", "low", "high", "n", "status"))
    for line in lines:
        for p in line.points:
            writer.writerow(
                (
                    line.id,
                    _scope(line),
                    trend.axis,
                    repr(p.x),
                    p.subject,
                    p.value,
                    p.low,
                    p.high,
                    p.n,
                    p.status,
                )
            )
    return out.getvalue()


# -- The page ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tick:
    at: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class _Dot:
    x: float
    y: float
    title: str
    hollow: bool


@dataclass(frozen=True)
class _Plot:
    """A plot in its own units: paths, dots and ticks ready to be written."""

    bands: tuple[str, ...]
    lines: tuple[str, ...]
    whiskers: tuple[tuple[float, float, float], ...]
    dots: tuple[_Dot, ...]
    changes: tuple[tuple[float, float], ...]
    xs: tuple[_Tick, ...]
    ys: tuple[_Tick, ...]


@dataclass(frozen=True)
class _Card:
    line: Line
    kind: MeasurementType
    scope: str
    plot: _Plot
    first_last: str
    arrow: str
    judged: str
    where: str
    driver: str | None
    summary: str


def _x_scale(trend: Trend) -> tuple[float, float, bool]:
    """Ends of the axis, and whether it is logarithmic: where values span a factor of over 30."""
    low, high = min(trend.xs), max(trend.xs)
    return low, high, low > 0 and high / low > 30 and not trend.ordered


def _plot(trend: Trend, line: Line) -> _Plot:
    left, right, logarithmic = _x_scale(trend)
    low, high = _range(line)

    def share(x: float) -> float:
        if logarithmic:
            return math.log(x / left) / math.log(right / left)
        return (x - left) / (right - left)

    def to_x(x: float) -> float:
        # Points keep a little distance from the frame.
        inner = _WIDTH - _LEFT - _RIGHT
        return round(_LEFT + inner * (0.02 + 0.96 * share(x)), 1)

    def to_y(y: float) -> float:
        inside = min(max((y - low) / (high - low), 0.0), 1.0)
        return round(_TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - inside), 1)

    # Replicates make a cloud, whose intervals are whiskers; one point a place makes a line with a band.
    cloud = len(set(trend.xs)) < len(trend.xs) or (not trend.ordered and len(trend.coordinates) > 1)
    runs: list[list[Point]] = [[]]
    for point in line.points:
        if point.value is None:
            runs.append([])
        else:
            runs[-1].append(point)
    lines, bands, whiskers = [], [], []
    for run in runs if not cloud else []:
        lines.append(" ".join(f"{to_x(p.x)},{to_y(p.value or 0.0)}" for p in run))
        held = [p for p in run if p.low is not None and p.high is not None]
        upper = [f"{to_x(p.x)},{to_y(p.high or 0.0)}" for p in held]
        lower = [f"{to_x(p.x)},{to_y(p.low or 0.0)}" for p in reversed(held)]
        bands.append(" ".join(upper + lower))
    if cloud:
        means = [(x, y) for x, y in _pooled(line.points) if y is not None]
        if len(means) < len(line.measured):
            lines.append(" ".join(f"{to_x(x)},{to_y(y)}" for x, y in means))
        whiskers = [
            (to_x(p.x), to_y(p.low), to_y(p.high))
            for p in line.measured
            if p.low is not None and p.high is not None
        ]
    dots = tuple(
        _Dot(
            to_x(p.x),
            to_y(p.value or 0.0),
            f"{p.subject}: {_figure(p.value)}"
            + ("" if p.low is None or p.high is None else f" [{_figure(p.low)}, {_figure(p.high)}]")
            + ("" if p.n is None else f", n = {p.n}")
            + ("" if p.status == "ok" else f", {p.status}"),
            p.status != "ok",
        )
        for p in line.measured
    )
    middle = math.sqrt(left * right) if logarithmic else (left + right) / 2
    xs: tuple[_Tick, ...]
    if trend.axis == "order":
        xs = (_Tick(to_x(left), trend.subjects[0], "start"), _Tick(to_x(right), trend.subjects[-1], "end"))
    else:
        xs = (
            _Tick(to_x(left), f"{left:g}", "start"),
            _Tick(to_x(middle), f"{middle:.3g}"),
            _Tick(to_x(right), f"{right:g}", "end"),
        )
    ys = tuple(_Tick(to_y(y), _figure(y)) for y in (low, (low + high) / 2, high))
    changes = tuple((to_x(c.before), round(to_x(c.after) - to_x(c.before), 1)) for c in line.changes)
    return _Plot(
        tuple(b for b in bands if b), tuple(x for x in lines if x), tuple(whiskers), dots, changes, xs, ys
    )


def _card(trend: Trend, line: Line) -> _Card:
    where = _where(trend, line)
    first_last = _first_last(line)
    return _Card(
        line=line, kind=_kind(line), scope=_scope(line), plot=_plot(trend, line), first_last=first_last,
        arrow=_ARROWS[line.direction], judged=_judgement(line), where=where,
        driver=_driver(line.driver) if line.associations else None,
        summary=f"{_kind(line).title}: {first_last}, {line.direction}; {where}",
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = templates()
    environment.filters.update(p_in_words=_p, figure=_figure)
    return environment


def render_page(trend: Trend, lines: Sequence[Line]) -> str:
    """The chosen lines as one self-contained HTML page: no dates, no links, nothing from elsewhere."""
    script = asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    order = ("worse", "moves", "better", "")
    cards = [_card(trend, line) for line in lines]

    def rank(card: _Card) -> tuple[bool, int, bool]:
        way = card.judged or ("moves" if card.line.direction == "moves" else "")
        return bool(card.line.scope), order.index(way), card.line.direction in ("flat", "untested")

    # What holds for all comes before groups, and what became worse, which a reader came for, first.
    cards.sort(key=rank)
    return (
        _environment()
        .get_template("trend.html")
        .render(
            trend=trend,
            heading=_heading(trend),
            cards=cards,
            csp="default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
            style=Markup(asset("report.css") + asset("trend.css")),
            script=Markup(script),
            size={"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "right": _WIDTH - _RIGHT,
                  "top": _TOP, "bottom": _HEIGHT - _BOTTOM},
        )
    )  # fmt: skip


def write_page(trend: Trend, lines: Sequence[Line], path: Path) -> Path:
    """Write the page to `path`, whole or not at all."""
    write_whole({path: render_page(trend, lines)})
    return path
