"""`candling audit`: run the audit that the repository around us describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Protocol, cast

import typer

from candling.audit.gate import Verdict, judge
from candling.audit.record import AuditRecord, read_record
from candling.cli.completing import params_files
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.progress import Progress
from candling.cli.repository import find_repository, load_module
from candling.errors import NothingAudited, ParamsError
from candling.report.terminal import render_verdict
from candling.report.text import quiet

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Outcome(Protocol):
    """What `flows.audit.main` returns."""

    @property
    def subjects(self) -> dict[str, Path]:
        """Folder of the record of each subject."""

    @property
    def report(self) -> Path:
        """The report that reads them all."""

    @property
    def failed(self) -> bool:
        """Whether an errored record was written."""

    @property
    def gate_subject(self) -> str | None:
        """The subject that params name under `gate:`."""


def _gate_verdict(outcome: Outcome, judged: dict[str, tuple[AuditRecord, Verdict]]) -> Verdict:
    name = outcome.gate_subject
    if name is None:
        raise ParamsError("--gate needs `gate:` in the params, the subject whose verdict counts")
    if name not in judged:
        raise NothingAudited(f"the subject {name!r}, which params name under `gate:`, has no record")
    return judged[name][1]


def _told(outcome: Outcome, judged: dict[str, tuple[AuditRecord, Verdict]]) -> dict[str, object]:
    return {
        "report": str(outcome.report),
        "gate": outcome.gate_subject,
        "failed": outcome.failed,
        "subjects": [
            {"record": str(outcome.subjects[name]), **verdict.to_dict()}
            for name, (_, verdict) in judged.items()
        ],
    }


@app.command()
def audit(
    params: Annotated[
        Path, typer.Argument(metavar="PARAMS", help="Such as params/tanks.yaml.", autocompletion=params_files)
    ],
    gate: Annotated[
        bool, typer.Option("--gate", help="End with the gate's code for the `gate:` subject.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Run an audit and write its records and report.

    Exits 0 once the records are whole, whatever the verdict; 2 if a step failed; --gate changes that.
    """
    flow = load_module(find_repository(Path.cwd()), "flows.audit", "audit")
    with Progress() as progress:
        outcome = cast(Outcome, flow.main(params, progress))
    judged = {}
    for name, folder in outcome.subjects.items():
        record = read_record(folder)
        judged[name] = (record, judge(record))
    # Judged whole before a line is printed: a record that cannot be read is one error, not half a table.
    if as_json:
        emit(json.dumps(_told(outcome, judged), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    else:
        for record, verdict in judged.values():
            emit(render_verdict(record, verdict, terminal=is_terminal(), width=width(), short=True) + "\n")
        emit(f"report: {quiet(str(outcome.report))}\n")
    if gate:
        raise typer.Exit(_gate_verdict(outcome, judged).exit_code)
    raise typer.Exit(2 if outcome.failed else 0)
