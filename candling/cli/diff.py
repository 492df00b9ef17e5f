"""`candling diff`: what changed from one record to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from candling.audit.comparison import Comparison, compare
from candling.audit.gate import judge
from candling.cli.completing import subjects
from candling.cli.gate import folder_of, read_subject
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.errors import ParamsError
from candling.writing import write_whole

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def diff(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD", help="A report folder, such as reports/tanks/before.", autocompletion=subjects
        ),
    ],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="Such as reports/tanks/after.", autocompletion=subjects)
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Compare though classes or eval data differ, and say so.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="List what did not change, too.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write a page of it, pictures side by side, such as diff.html."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Say which findings are new, fixed, worse or better, and which measurements changed by more than chance.

    Exits 0 whatever changed: rules `against: baseline` hold a change to a policy.
    """
    found = compare(read_subject(old), read_subject(new), force=force)
    if output is not None:
        if output.is_dir():
            raise ParamsError(f"--output {output}: is a folder, and a file is wanted")
        write_whole({output: _page(found, folder_of(old), folder_of(new), output.parent)})
    if as_json:
        emit(json.dumps(found.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n")
        return
    emit(_drawn(found, every=every))


def _page(found: Comparison, old: Path, new: Path, beside: Path) -> str:
    from candling.report.html import render

    # Records that cannot be compared, and were all the same, are judged alone.
    base = None if found.differing else found.old
    verdicts = judge(found.old, first=True), judge(found.new, baseline=base)
    records = [(found.old, old, verdicts[0]), (found.new, new, verdicts[1])]
    names = [f"{one.audit}/{one.subject}" for one in (found.old, found.new)]
    title = f"What changed from {names[0]} to {names[1]}"
    return render(records, title=title, beside=beside, comparison=found)


def _drawn(found: Comparison, *, every: bool) -> str:
    from candling.report.terminal import render_comparison

    return render_comparison(found, every=every, terminal=is_terminal(), width=width())
