"""`candling gate`: hold a record to its policy."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from candling.audit.comparison import compare
from candling.audit.gate import judge
from candling.audit.policy import read_policy, read_source
from candling.audit.record import AuditRecord, read_record
from candling.cli.completing import formats, model_folders, subjects
from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.repository import find_repository, load_module
from candling.digests import digest_of
from candling.errors import ModelError, NothingAudited, ParamsError, RecordError
from candling.report.audited import Audited
from candling.writing import write_whole

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_TERMINAL = "terminal"
_AGE = re.compile(r"(\d{1,6})([mhd])")
_SPECS = ("spec.json", "config.json")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def read_subject(folder: Path) -> AuditRecord:
    """The record of one subject; a folder of several says which they are."""
    try:
        return read_record(folder)
    except NothingAudited:
        names = sorted(file.parent.name for file in folder.glob("*/record.json")) if folder.is_dir() else []
        if not names:
            raise
        raise NothingAudited(
            f"{folder}: holds several subjects ({', '.join(names)}); name the folder of one"
        ) from None


def folder_of(report: Path) -> Path:
    """Where a record lies that was named by its folder or its file."""
    return report if report.is_dir() else report.parent


def _age(text: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None or not int(match[1]):
        raise ParamsError(f"--max-age {text!r}: write minutes, hours or days, such as 90m, 24h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def check_age(report: Path, most: timedelta) -> None:
    """See that an audit began no longer ago.

    Raises
    ------
    RecordError
        If it did, or nothing beside the record says when it began.
    """
    file = folder_of(report) / "run.json"
    try:
        began = datetime.fromisoformat(str(json.loads(file.read_text(encoding="utf-8"))["started"]))
        age = datetime.now(UTC) - began
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: does not say when the audit began; run it again") from error
    if age > most:
        raise RecordError(
            f"{report}: the audit began {_told(age)} ago, more than the {_told(most)} of --max-age; "
            "run it again"
        )
    if age < -timedelta(hours=1):
        raise RecordError(f"{report}: the audit began in the future, at {began.isoformat()}; run it again")


def _told(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"


def check_model(record: AuditRecord, model: str) -> None:
    """See that a model, a path or ``models:/NAME@ALIAS``, is the one that was audited.

    Raises
    ------
    ModelError
        If it is not, or the record does not say which one was.
    """
    if not model.startswith("models:/"):
        _check_bytes(record, Path(model), model)
        return
    root = find_repository(Path.cwd())
    tracking = load_module(root, "tasks.tracking", "gate")
    with tempfile.TemporaryDirectory(prefix="candling-") as place:
        folder = tracking.download_model(model, root, Path(place))
        inside = [file.parent for file in sorted(folder.rglob("*")) if file.name in _SPECS]
        _check_bytes(record, inside[0] if inside else folder, model)


def _check_bytes(record: AuditRecord, model: Path, called: str) -> None:
    audited = {record.digests.get(key) for key in ("model", "model.weights")} - {None}
    name = f"{record.audit}/{record.subject}"
    if not audited:
        raise ModelError(f"{name}: the record does not say which model was audited; run the audit again")
    found = digest_of(model)
    if found not in audited:
        raise ModelError(
            f"{called}: digest {found[:12]} is not that of the model that {name} is about "
            f"({record.digests.get('model', '')[:12]}); audit this one"
        )


def _targets(formats: list[str], outputs: list[Path], as_json: bool) -> tuple[str | None, dict[Path, str]]:
    """The format for standard output, and that of each file."""
    from candling.report.formats import FORMATS

    for name in formats:
        if name not in (*FORMATS, _TERMINAL):
            known = ", ".join((_TERMINAL, *FORMATS))
            raise ParamsError(f"--format {name!r} is not known; there are {known}")
    if as_json and (formats or outputs):
        raise ParamsError("--json prints the verdict; with --format json it can be written to a file")
    if as_json:
        return "json", {}
    if len(outputs) > len(formats):
        raise ParamsError("each --output FILE needs its own --format before it")
    if len(formats) - len(outputs) > 1:
        raise ParamsError("only one --format can be printed; give the others an --output FILE each")
    printed = formats[len(outputs)] if len(formats) > len(outputs) else None
    files = dict(zip(outputs, formats, strict=False))
    if folders := [str(path) for path in outputs if path.is_dir()]:
        raise ParamsError(f"--output {folders[0]}: is a folder, and a file is wanted")
    if len(files) < len(outputs):
        raise ParamsError("two formats cannot be written to one --output FILE")
    # What is written to files only is still told on the terminal.
    return printed or _TERMINAL, files


@app.command()
def gate(
    report: Annotated[
        Path,
        typer.Argument(
            metavar="REPORT_FOLDER", help="Such as reports/tanks/before.", autocompletion=subjects
        ),
    ],
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Rules to use instead of the record's own."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="REPORT_FOLDER",
            help="The record that changes are taken from.",
            autocompletion=subjects,
        ),
    ] = None,
    first: Annotated[
        bool, typer.Option("--first", help="There is no baseline yet: rules on changes only warn.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH",
            help="Refuse unless this, or models:/NAME@ALIAS, is the model that was audited.",
            autocompletion=model_folders,
        ),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", metavar="AGE", help="Refuse an audit older than, say, 24h or 7d."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="terminal, html, json, junit, sarif, github, summary, markdown or model-card; "
            "may be repeated.",
            autocompletion=formats,
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", metavar="FILE", help="Where the format before it is written."),
    ] = None,
    promote: Annotated[
        str | None,
        typer.Option("--promote", metavar="ALIAS", help="On a pass, put this alias on the model in MLflow."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Hold a record to its policy.

    Exits 0 passed, 1 blocked, 2 incomplete or errored, 3 nothing was audited, 4 usage error.
    """
    printed, files = _targets(format or [], output or [], as_json)
    oldest = None if max_age is None else _age(max_age)
    if first and baseline is not None:
        raise ParamsError("--first says that there is no baseline, and --baseline names one")
    rules = None if policy is None else read_policy(policy)
    record = read_subject(report)
    if policy is not None and rules is not None:
        record = record.model_copy(update={"policy": rules, "source": read_source(policy, policy.as_posix())})
    if model is not None:
        check_model(record, model)
    if oldest is not None:
        check_age(report, oldest)
    before = None if baseline is None else read_subject(baseline)
    verdict = judge(record, baseline=before, first=first)
    comparison = None if before is None else compare(before, record)
    folder = folder_of(report)
    audited = Audited(
        record, verdict, comparison, (folder.parent / "report.html").as_posix(), folder,
        None if baseline is None else folder_of(baseline),
    )  # fmt: skip
    write_whole({file: _rendered(name, audited, terminal=False) for file, name in files.items()})
    emit(_rendered(printed or _TERMINAL, audited, terminal=is_terminal()))
    if promote is not None and verdict.exit_code == 0:
        root = find_repository(Path.cwd())
        version = load_module(root, "tasks.tracking", "gate").promote(record, promote, root)
        print(f"{version} is {record.audit}@{promote} now", file=sys.stderr)
    raise typer.Exit(verdict.exit_code)


def _rendered(name: str, audited: Audited, *, terminal: bool) -> str:
    from candling.report.formats import FORMATS
    from candling.report.terminal import render_verdict

    if name != _TERMINAL:
        return FORMATS[name](audited)
    text = render_verdict(audited.record, audited.verdict, terminal=terminal, width=width())
    return text if audited.comparison is None else f"{text}since the baseline: {audited.comparison.summary}\n"
