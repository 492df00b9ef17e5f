"""What `prototype` and `visualize` share: rows that outlive an interruption, progress, and what is printed.

Finished rows lie in a hidden folder beside the result until that is whole. So the result's folder is there
whole or not at all, and holds nothing but the result; and a run that was interrupted, or killed, goes on when
the same command is given again.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from candling.cli.output import emit, is_terminal, width
from candling.cli.progress import Progress

if TYPE_CHECKING:
    from candling.vision.advance import Advance
    from candling.vision.results import Visualizations

__all__ = ["make", "plain", "render"]


_OF_BAR = 1000  # parts of a bar


def make(
    climb: Callable[[Path, Callable[[Advance], None]], Visualizations],
    name: Literal["prototypes", "visualizations"],
    out: Path | None,
    *,
    digest: str,
    columns: Mapping[str, str],
    as_json: bool,
) -> None:
    """Climb, write the folder and print the table.

    Parameters
    ----------
    climb
        Given a folder for rows and whom to tell of progress, gives the result.
    name
        What is made.
    out
        Folder of the result; None: `name`.
    digest
        Of the model.
    columns
        Of the table, and how each is printed.
    as_json
        Print JSON alone.

    Raises
    ------
    ParamsError
        If the folder holds other things, which is seen before anything is climbed.
    """
    from candling.vision import gallery

    folder = Path(name) if out is None else out
    gallery.check_place(folder, name)
    whole = folder.resolve()
    rows = whole.parent / f".{whole.name}.rows"
    last: Advance | None = None

    def tell(advance: Advance) -> None:
        nonlocal last
        last = advance
        progress.advance(
            name, "", round(_OF_BAR * advance.share), _OF_BAR, said=advance.counted, left=advance.remaining
        )

    try:
        with Progress() as progress:
            progress.start(name, "", _OF_BAR)
            found = climb(rows, tell)
            found.save(folder)
            progress.finish(name, "", hit=False)
    except KeyboardInterrupt:
        if last is not None and last.rows:
            print(f"{last.counted} are kept; the same command goes on from there", file=sys.stderr)
        else:
            print("no row was finished yet; the same command begins anew", file=sys.stderr)
        raise
    shutil.rmtree(rows, ignore_errors=True)
    table: list[dict[Any, Any]] = found.table.to_dict("records")
    if as_json:
        said = {
            "model": digest,
            "folder": str(folder),
            "settings": dataclasses.asdict(found.settings),
            "notes": list(found.notes),
            name: [{key: plain(value) for key, value in row.items()} for row in table],
        }
        emit(json.dumps(said, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        return
    facts = [*found.notes, f"contact sheet: {folder / f'{name}.png'}"]
    emit(render(table, columns, facts, terminal=is_terminal(), width=width()))


def plain(value: Any) -> Any:
    """A value as JSON has it: what is no finite number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    facts: Sequence[str],
    *,
    terminal: bool,
    width: int,
) -> str:
    """Rows as a table, then sentences."""
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
    for column in columns:
        table.add_column(
            column, justify="left" if isinstance(rows[0][column], str) else "right", overflow="fold"
        )
    for row in rows:
        cells = ("–" if plain(row[key]) is None else form.format(row[key]) for key, form in columns.items())
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console.print(table)
    console.print()
    for fact in facts:
        # Not folded: in a log a sentence is one line.
        console.print(Text(clean(fact)), soft_wrap=not terminal)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
