"""`candling audit`: run the audit that the repository around us describes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from candling.audit.gate import Verdict, judge
from candling.audit.record import AuditRecord, read_record
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.progress import Progress
from candling.errors import CandlingError, NothingAudited, ParamsError
from candling.report.terminal import clean, render_verdict

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


def find_repository(start: Path) -> Path:
    """The audit repository around `start`: the nearest folder upward that has flows/audit.py.

    Nothing else in candling looks upward.

    Raises
    ------
    CandlingError
        If there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "flows" / "audit.py").is_file():
            return folder
    raise CandlingError(f"{start}: no flows/audit.py here or above; run this inside an audit repository")


def _load_flow(root: Path) -> Any:
    """`flows.audit` of the repository at `root`."""
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        flow = importlib.import_module("flows.audit")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "candling", "flows", "tasks"):
            raise
        message = f"audit needs {error.name}; install it with `pip install 'candling[audit]'`"
        raise CandlingError(message) from error
    # A package called `flows` that someone installed would otherwise be run in place of ours.
    if Path(flow.__file__ or "").resolve().parent.parent != root.resolve():
        raise CandlingError(f"{flow.__file__}: shadows {root / 'flows' / 'audit.py'}; take it off PYTHONPATH")
    return flow


def _gate_verdict(outcome: Outcome, judged: dict[str, tuple[AuditRecord, Verdict]]) -> Verdict:
    name = outcome.gate_subject
    if name is None:
        raise ParamsError("--gate needs `gate:` in the params, the subject whose verdict counts")
    if name not in judged:
        raise NothingAudited(f"the subject {name!r}, which params name under `gate:`, has no record")
    return judged[name][1]


@app.command()
def audit(
    params: Annotated[Path, typer.Argument(metavar="PARAMS", help="Such as params/tanks.yaml.")],
    gate: Annotated[
        bool, typer.Option("--gate", help="End with the gate's code for the `gate:` subject.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run an audit and write its records and report.

    Exits 0 once the records are whole, whatever the verdict; 2 if a step failed; --gate changes that.
    """
    flow = _load_flow(find_repository(Path.cwd()))
    with Progress() as progress:
        outcome = cast(Outcome, flow.main(params, progress))
    judged = {}
    for name, folder in outcome.subjects.items():
        record = read_record(folder)
        judged[name] = (record, judge(record))
    # Judged whole before a line is printed: a record that cannot be read is one error, not half a table.
    for record, verdict in judged.values():
        emit(render_verdict(record, verdict, terminal=is_terminal(), width=width(), short=True) + "\n")
    emit(f"report: {clean(str(outcome.report))}\n")
    if gate:
        raise typer.Exit(_gate_verdict(outcome, judged).exit_code)
    raise typer.Exit(2 if outcome.failed else 0)
