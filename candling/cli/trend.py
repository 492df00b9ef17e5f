"""`candling trend`: line up the records of a series and say where each measurement changed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from candling.cli.completing import measurements, reports
from candling.cli.options import STDOUT, Debug
from candling.cli.output import emit, is_terminal, width
from candling.errors import NothingAudited, ParamsError
from candling.writing import write_whole

if TYPE_CHECKING:
    from candling.audit.trend import Line, Trend

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Orders `step-9` before `step-10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _files(given: Iterable[Path]) -> list[Path]:
    """The record files that the arguments name: themselves, in a folder, or one level inside it."""
    out: list[Path] = []
    for path in given:
        if not path.is_dir() or (path / "record.json").is_file():
            out.append(path)
            continue
        inside = sorted((file.parent for file in path.glob("*/record.json")), key=_natural)
        if not inside:
            raise NothingAudited(f"{path}: no record.json here nor one level below")
        out += inside
    return out


def _chosen(trend: Trend, only: list[str], everything: bool) -> list[Line]:
    from candling.report.trend import is_simple

    ids = sorted({line.id for line in trend.lines})
    for id in only:
        if id not in ids:
            close = difflib.get_close_matches(id, ids, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"they hold {', '.join(ids) or 'none'}"
            raise ParamsError(f"--only {id}: no such measurement in these records; {hint}")
    return [line for line in trend.lines if (not only or line.id in only) and (everything or is_simple(line))]


@app.command()
def trend(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORD", help="Records, their folders, or a folder of several.", autocompletion=reports
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Coordinate to line up along; `order` as given."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="ID",
            help="Only this measurement; may be repeated.",
            autocompletion=measurements,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every scope, not only the simple ones.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page of plots.")
    ] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all as JSON; - prints it alone.")
    ] = None,
    as_csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write points as CSV.")] = None,
    debug: Debug = False,
) -> None:
    """Line up the records of a series: checkpoints, hyper-parameter runs, releases.

    Says of each measurement how it went, where it changed, and which hyper-parameter drives it.
    """
    from candling.audit.record import read_record
    from candling.audit.trend import line_up
    from candling.report.trend import render_csv, render_trend, write_page

    found = line_up([read_record(path) for path in _files(records)], by)
    lines = _chosen(found, only or [], everything)
    if not lines:
        raise NothingAudited(
            "these records hold no overall, class or group measurement; --all shows the rest"
        )
    if html is not None:
        write_page(found, lines, html)
    if as_json is not None:
        text = json.dumps(found.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        if as_json == STDOUT:
            emit(text)
        else:
            write_whole({as_json: text})
    if as_csv is not None:
        write_whole({as_csv: render_csv(found, lines)})
    if as_json != STDOUT:
        emit(render_trend(found, lines, terminal=is_terminal(), width=width()))
