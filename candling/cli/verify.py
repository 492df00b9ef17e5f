"""`candling verify`: whether a report is still what the audit wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from candling.audit.record import SCHEMA_VERSION, read_record
from candling.cli.options import Debug
from candling.cli.output import emit
from candling.errors import NothingAudited
from candling.report.artifacts import NotThere, read_artifact
from candling.report.text import clean

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def problems(folder: Path) -> list[str]:
    """What is not as the audit of one subject wrote it."""
    record = read_record(folder)
    found = []
    written = (folder / "record.json").read_text(encoding="utf-8")
    # Records of earlier schemas were written in their own form.
    if record.schema_version == SCHEMA_VERSION and written != record.to_json():
        found.append("record.json was edited: it is not in the form that candling writes")
    for artifact in record.artifacts:
        try:
            read_artifact(artifact, folder, artifact.path)
        except NotThere as error:
            found.append(str(error))
    return found


@app.command()
def verify(
    report: Annotated[
        Path,
        typer.Argument(metavar="REPORT_FOLDER", help="Of one subject or of an audit, such as reports/tanks."),
    ],
    debug: Debug = False,
) -> None:
    """See that every picture and table still has the digest that the record gives it.

    Exits 0 if so, 2 if something is missing or changed, 3 if there is no record.
    """
    folders = [report] if (report / "record.json").is_file() else []
    folders = folders or sorted(file.parent for file in report.glob("*/record.json"))
    if not folders:
        raise NothingAudited(f"{report}: no record.json here; run `candling audit` first")
    wrong = 0
    for folder in folders:
        found = problems(folder)
        wrong += bool(found)
        count = len(read_record(folder).artifacts)
        state = "as audited" if not found else f"{len(found)} of them changed"
        emit(f"{clean(str(folder))}: record and {count} files, {state}\n")
        emit("".join(f"  {clean(problem)}\n" for problem in found))
    raise typer.Exit(2 if wrong else 0)
