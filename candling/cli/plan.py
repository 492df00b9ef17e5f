"""`candling plan`: what an audit will run and what it will cost, before anything runs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import typer

from candling.cli.completing import params_files
from candling.cli.options import STDOUT, Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.progress import Progress
from candling.cli.repository import find_repository, load_module
from candling.writing import write_whole

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Step(Protocol):
    """One row of the table."""

    subject: str
    step: str
    forward: int
    backward: int
    pictures: int
    seconds: float
    stored: bool


class Disk(Protocol):
    """Bytes."""

    store: float
    report: float
    tracking: float


class Plan(Protocol):
    """What `tasks.plan.main` returns."""

    audit: str
    steps: Sequence[Step]
    slots: int
    seconds: float
    disk: Disk
    left_out: Mapping[str, str]
    notes: Mapping[str, str]

    @property
    def forward(self) -> int:
        """Evaluations without gradients."""

    @property
    def backward(self) -> int:
        """Evaluations with gradients."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""


def _minutes(seconds: float) -> str:
    return "under 0.1" if seconds < 6 else f"{seconds / 60:.1f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e6:.1f} MB"


def _cost(step: Step) -> str:
    return "in the store" if step.stored else _minutes(step.seconds)


def _rows(plan: Plan) -> list[tuple[str, ...]]:
    def number(value: int) -> str:
        return f"{value:,}" if value else "–"

    rows = [
        (s.subject, s.step, number(s.pictures), number(s.forward), number(s.backward), _cost(s))
        for s in plan.steps
    ]
    total = ("", "all", number(sum(s.pictures for s in plan.steps)), number(plan.forward),
             number(plan.backward), _minutes(plan.seconds))  # fmt: skip
    return [*rows, total]


def _facts(plan: Plan) -> list[str]:
    disk = plan.disk
    parts = {"store": disk.store, "report": disk.report, "MLflow": disk.tracking}
    room = ", ".join(f"{name} {_megabytes(size)}" for name, size in parts.items())
    at_once = "one step at a time" if plan.slots == 1 else f"{plan.slots} steps at a time"
    return [
        f"evaluations: {plan.forward + plan.backward:,} images through the model, "
        f"{plan.backward:,} of them with gradients",
        f"time: about {_minutes(plan.seconds)} minutes on this machine, {at_once}, if nothing else runs",
        f"disk: about {_megabytes(sum(parts.values()))} ({room})",
    ]


def _render(plan: Plan, *, terminal: bool, width: int) -> str:
    """Steps as a table, totals, then sentences on the data and on what will be left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from candling.report.text import clean

    buffer = io.StringIO()
    colours: Literal["auto"] | None = "auto" if terminal else None
    console = Console(
        file=buffer, force_terminal=terminal, width=width, color_system=colours, highlight=False
    )
    table = Table(box=box.SIMPLE if terminal else None, pad_edge=False, show_edge=False)
    for name in ("subject", "step"):
        table.add_column(name, overflow="fold")
    for name in ("pictures", "forward", "forward+backward", "minutes"):
        table.add_column(name, justify="right", overflow="fold")
    rows = _rows(plan)
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row), style="bold" if row is rows[-1] else None)
    console.print(table)
    console.print()

    def say(text: str) -> None:
        # Not folded: in a log a fact is one line.
        console.print(Text(clean(text)), soft_wrap=not terminal)

    for fact in _facts(plan):
        say(fact)
    for title, sentences in (("data", plan.notes), ("left out", plan.left_out)):
        if sentences:
            console.print()
        for name, sentence in sentences.items():
            say(f"{name if title == 'data' else f'{title}: {name}'}: {sentence}")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


@app.command()
def plan(
    params: Annotated[
        Path, typer.Argument(metavar="PARAMS", help="Such as params/tanks.yaml.", autocompletion=params_files)
    ],
    as_json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the plan as JSON too; - prints it alone."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say what an audit will run and what it will cost: evaluations, minutes on this machine, disk.

    Counts and times a few seconds of evaluations; nothing is measured and no report is written.
    """
    planning = load_module(find_repository(Path.cwd()), "tasks.plan", "plan")
    with Progress() as progress:
        found = cast(Plan, planning.main(params, progress))
    if as_json is not None:
        text = json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        if as_json == STDOUT:
            emit(text)
            return
        write_whole({as_json: text})
    emit(_render(found, terminal=is_terminal(), width=width()))
