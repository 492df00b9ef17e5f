"""Verdicts and the registry as text: tables on a terminal, the same without colour elsewhere."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from candling.audit.comparison import Comparison
from candling.audit.gate import Outcome, Verdict
from candling.audit.measurements import MeasurementType
from candling.audit.record import AuditRecord
from candling.report.text import clean, quiet

__all__ = ["measured", "render_checks", "render_comparison", "render_rules", "render_verdict"]

_STYLES = {
    "passed": "green",
    "failed": "bold red",
    "blocked": "bold red",
    "warned": "yellow",
    "waived": "yellow",
    "inconclusive": "magenta",
    "incomplete": "magenta",
    "missing": "magenta",
    "error": "bold magenta",
    "nothing": "magenta",
}


def _text(text: str, style: str = "") -> Text:
    # A Text, not a string: rich reads markup in strings.
    return Text(quiet(text), style=style)


def measured(outcome: Outcome) -> str:
    """A measurement in words: ``0.93 [0.88, 0.96] (n 120)``."""
    if outcome.value is None:
        return "–"
    ends = (outcome.low, outcome.high)
    interval = "" if None in ends else f" [{outcome.low:.3g}, {outcome.high:.3g}]"
    return f"{outcome.value:.3g}{interval}" + ("" if outcome.n is None else f" (n {outcome.n})")


def _table(*, terminal: bool) -> Table:
    return Table(box=box.SIMPLE if terminal else None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))


def _render(*parts: RenderableType, terminal: bool, width: int) -> str:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=width, highlight=False, emoji=False, legacy_windows=False
    )
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _fit(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Widths of the columns: what they need, or narrower where that is too much.

    Scopes, thresholds and intervals give way first, as they fold at spaces; an id is folded last.
    """
    needs = [max(cell_len(clean(cell)) for cell in column) for column in zip(*rows, strict=True)]
    id = max(cell_len(clean(row[0].partition(" ")[0])) for row in rows)
    for column, least in ((0, id), (2, 14), (1, 17), (0, 8), (1, 8), (2, 8)):
        needs[column] -= max(0, min(sum(needs) - room, needs[column] - least))
    return needs


def _outcomes(outcomes: Sequence[Outcome], *, terminal: bool, width: int) -> Table:
    header = ("rule", "measured", "threshold", "verdict")
    rows = [(o.rule.label, measured(o), o.threshold, o.status) for o in outcomes]
    table = _table(terminal=terminal)
    # The box that a terminal gets has one more space between columns.
    gaps = (len(header) - 1) * (3 if terminal else 2)
    for name, space in zip(header, _fit([header, *rows], width - gaps), strict=True):
        table.add_column(name, overflow="fold", width=space)
    for *cells, status in rows:
        table.add_row(*map(_text, cells), _text(status, _STYLES[status]))
    return table


def render_verdict(
    record: AuditRecord, verdict: Verdict, *, terminal: bool = False, width: int = 80, short: bool = False
) -> str:
    """The verdict on one record as text.

    Parameters
    ----------
    terminal
        Colours and lines, for a terminal; plain otherwise.
    width
        Columns to keep the table within.
    short
        Leave out the reasons under the table.
    """
    parts: list[RenderableType] = []
    if verdict.outcomes:
        parts.append(_outcomes(verdict.outcomes, terminal=terminal, width=width))
    parts += [_text(f"error in {error.step}: {error.message}", "magenta") for error in record.errors]
    if not short:
        for outcome in verdict.outcomes:
            if outcome.status != "passed":
                why = f" – {outcome.rule.why}" if outcome.rule.why else ""
                parts.append(_text(f"{outcome.status}: {outcome.message}{why}"))
    for use in verdict.waivers:
        parts.append(_text(f"waiver {use.status}: {use.message}", "yellow"))
    parts.append(_text(verdict.summary, _STYLES[verdict.status]))
    return _render(*parts, terminal=terminal, width=width)


def _range(kind: MeasurementType) -> str:
    def end(value: float) -> str:
        return f"{value:g}".replace("inf", "∞")

    return f"{end(kind.low)} to {end(kind.high)}"


def render_rules(kinds: Sequence[MeasurementType], *, terminal: bool = False, width: int = 80) -> str:
    """The registry as text: what a rule can be about, and by which formula."""
    table = _table(terminal=terminal)
    table.add_column("measurement", overflow="fold")
    table.add_column("range", no_wrap=True)
    table.add_column("better", no_wrap=True)
    table.add_column("meaning, and formula", overflow="fold")
    for kind in kinds:
        meaning = _text(kind.title).append("\n").append_text(_text(kind.formula, "dim"))
        table.add_row(_text(kind.id), _text(_range(kind)), _text(kind.better), meaning)
    return _render(table, terminal=terminal, width=width)


def render_comparison(
    found: Comparison, *, every: bool = False, terminal: bool = False, width: int = 80
) -> str:
    """What changed from one record to another, as text; with `every`, what did not change too."""
    parts: list[RenderableType] = [_text(f"not the same: {words}", "magenta") for words in found.differing]
    styles = {"new": "bold red", "worse": "bold red", "fixed": "green", "better": "green"}
    findings = [one for one in found.findings if every or one.status != "unchanged"]
    if findings:
        table = _table(terminal=terminal)
        for name in ("finding", "what became of it", "in words"):
            table.add_column(name, overflow="fold")
        for one in findings:
            table.add_row(
                _text(one.id), _text(one.status, styles.get(one.status, "")), _text(one.finding.statement)
            )
        parts.append(table)
    changes = [one for one in found.changes if every or one in found.significant]
    if changes:
        table = _table(terminal=terminal)
        for name in ("measurement", "old", "new", "change", "p", "verdict"):
            table.add_column(name, overflow="fold")
        for change in changes:
            gap = change.difference
            cells = [
                " ".join([change.id, *change.scope.values()]),
                *(
                    "–" if one is None or one.value is None else f"{one.value:.3g}"
                    for one in (change.old, change.new)
                ),
                "–" if gap is None else f"{gap.value:+.3g} [{gap.low:+.3g}, {gap.high:+.3g}]",
                "–" if change.p is None else "<1e-6" if change.p < 1e-6 else f"{change.p:.2g}",
            ]
            table.add_row(*map(_text, cells), _text(change.status, styles.get(change.status, "")))
        parts.append(table)
    parts.append(_text(found.summary))
    return _render(*parts, terminal=terminal, width=width)


def render_checks(rows: Sequence[tuple[str, str, str]], *, terminal: bool = False, width: int = 80) -> str:
    """What was looked at, how it is (ok, note or bad) and what was found, as text."""
    styles = {"ok": "green", "note": "yellow", "bad": "bold red"}
    table = _table(terminal=terminal)
    for name in ("what", "state", "found"):
        table.add_column(name, overflow="fold")
    for what, state, found in rows:
        table.add_row(_text(what), _text(state, styles[state]), _text(found))
    return _render(table, terminal=terminal, width=width)
