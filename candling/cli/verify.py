"""`candling verify`: whether a report is still what the audit wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from candling.audit.record import SCHEMA_VERSION, read_record
from candling.cli.completing import reports
from candling.cli.options import Debug
from candling.cli.output import emit
from candling.errors import NothingAudited
from candling.report.artifacts import NotThere, read_artifact
from candling.report.text import quiet

_LEFT = ("record.json", "run.json", "pictures", "tables")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def problems(folder: Path) -> list[str]:
    """What is not as the audit of one subject wrote it."""
    file = folder / "record.json"
    if not file.is_file():
        return ["record.json missing"]
    record = read_record(folder)
    found = []
    # Records of earlier schemas were written in their own form.
    if record.schema_version == SCHEMA_VERSION and file.read_text(encoding="utf-8") != record.to_json():
        found.append("record.json was edited: it is not in the form that candling writes")
    written = _written(folder)
    if written is not None and written != hashlib.sha256(file.read_bytes()).hexdigest():
        found.append("record.json was changed since the audit: run.json has another digest of it")
    for artifact in record.artifacts:
        try:
            read_artifact(artifact, folder, artifact.path)
        except NotThere as error:
            found.append(str(error))
    return found


def _written(folder: Path) -> str | None:
    """The digest of the record as the audit wrote it; None where it does not say."""
    try:
        told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = told.get("record") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None


@app.command()
def verify(
    report: Annotated[
        Path,
        typer.Argument(
            metavar="REPORT_FOLDER",
            help="Of one subject or of an audit, such as reports/tanks.",
            autocompletion=reports,
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """See that every picture and table still has the digest that the record gives it.

    Exits 0 if so, 2 if something is missing or changed, 3 if there is no record.
    """
    folders = [report] if (report / "record.json").is_file() else []
    # Of a subject whose record is gone, what else the audit wrote still stands there.
    folders = folders or sorted({file.parent for name in _LEFT for file in report.glob(f"*/{name}")})
    if not folders:
        raise NothingAudited(f"{report}: no record.json here; run `candling audit` first")
    found = {folder: problems(folder) for folder in folders}
    if as_json:
        told = [
            {
                "folder": str(folder),
                "as_audited": not wrong,
                "problems": wrong,
                # Without a digest beside it, nothing tells whether the record itself was edited.
                "record_digest_known": _written(folder) is not None,
            }
            for folder, wrong in found.items()
        ]
        emit(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        for folder, wrong in found.items():
            emit(_drawn(folder, wrong))
    raise typer.Exit(2 if any(found.values()) else 0)


def _drawn(folder: Path, wrong: list[str]) -> str:
    state = "not as audited" if wrong else "as audited"
    if not wrong and _written(folder) is None:
        state = "the files are those that the record names; whether it was edited cannot be told"
    return f"{quiet(str(folder))}: {state}\n" + "".join(f"  {quiet(problem)}\n" for problem in wrong)
