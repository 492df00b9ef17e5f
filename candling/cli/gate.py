"""`candling gate`: hold a record to its policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from candling.audit.gate import judge
from candling.audit.policy import read_policy
from candling.audit.record import read_record
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.errors import NothingAudited

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _subjects(folder: Path) -> list[str]:
    """Subjects inside the folder of a whole audit."""
    return sorted(record.parent.name for record in folder.glob("*/record.json")) if folder.is_dir() else []


@app.command()
def gate(
    report: Annotated[Path, typer.Argument(metavar="REPORT_FOLDER", help="Such as reports/tanks/before.")],
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Rules to use instead of the record's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Hold a record to its policy.

    Exits 0 passed, 1 blocked, 2 incomplete or errored, 3 nothing was audited, 4 usage error.
    """
    rules = None if policy is None else read_policy(policy)
    try:
        record = read_record(report)
    except NothingAudited:
        if subjects := _subjects(report):
            names = ", ".join(subjects)
            raise NothingAudited(
                f"{report}: holds several subjects ({names}); name the folder of one"
            ) from None
        raise
    verdict = judge(record, rules)
    if as_json:
        emit(json.dumps(verdict.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n")
    else:
        from candling.report.terminal import render_verdict

        emit(render_verdict(record, verdict, terminal=is_terminal(), width=width()))
    raise typer.Exit(verdict.exit_code)
