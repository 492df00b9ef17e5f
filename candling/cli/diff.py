"""`candling diff`: what changed from one record to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from candling.audit.comparison import Comparison, compare
from candling.cli.gate import read_subject
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def diff(
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="A report folder, such as reports/tanks/before.")
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Such as reports/tanks/after.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare though classes or eval data differ, and say so.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="List what did not change, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say which findings are new, fixed, worse or better, and which measurements changed by more than chance.

    Exits 0 whatever changed: rules `against: baseline` hold a change to a policy.
    """
    found = compare(read_subject(old), read_subject(new), force=force)
    if as_json:
        emit(json.dumps(found.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return
    emit(_drawn(found, every=every))


def _drawn(found: Comparison, *, every: bool) -> str:
    from candling.report.terminal import render_comparison

    return render_comparison(found, every=every, terminal=is_terminal(), width=width())
