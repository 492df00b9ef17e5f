"""The `candling` command: its commands, and how errors end it.

Exit codes: 0 done or passed, 1 blocked, 2 incomplete or errored, 3 nothing was audited, 4 usage or
configuration error, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from candling.cli.options import Debug, debugging
from candling.errors import CandlingError

__all__ = ["guard", "main", "run"]

# Each is the module of its name in this package; it is imported only when it is called.
COMMANDS = (
    "associate",
    "attribute",
    "audit",
    "diff",
    "doctor",
    "gate",
    "init",
    "inspect",
    "isolate",
    "plan",
    "predict",
    "prototype",
    "rules",
    "trend",
    "trick",
    "verify",
    "visualize",
)

_COMPLETE = "_CANDLING_COMPLETE"  # set where a shell asks what could follow

USAGE = 4
ERRORED = 2
INTERRUPTED = 130

_ENVIRONMENT = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM}
_PLACES = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG}


class _Lazy(TyperGroup):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(f"candling.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(cls=_Lazy, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        from candling.cli.output import emit

        try:
            found = version("candling")
        except PackageNotFoundError:
            found = "(not installed)"
        emit(f"candling {found}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _candling(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Find out what a model has really learned, and block what should not ship."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(USAGE)


def _say(message: str) -> None:
    from candling.report.text import quiet

    try:
        print(f"error: {quiet(' '.join(message.split()))}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # stderr is gone; the exit code still tells


def _report(error: BaseException) -> int:
    """Tell a person about `error` and return the exit code that it ends with."""
    if debugging():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    code, sentence = (
        ERRORED,
        f"unexpected {type(error).__name__}: {error}; run again with --debug to see where",
    )
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        path = "candling" if context is None else context.command_path
        code, sentence = USAGE, f"{error.format_message()} Try `{path} --help`."
    elif isinstance(error, CandlingError):
        code, sentence = error.exit_code, str(error)
    elif isinstance(error, OSError) and error.errno in _PLACES:
        where = "" if error.filename is None else f"{error.filename}: "
        code, sentence = USAGE, f"{where}{error.strerror}; name another place"
    elif isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = "" if error.filename is None else f"{error.filename}: "
        code, sentence = USAGE, f"{where}{error.strerror}; make room or give write access, and run again"
    if not debugging():
        _say(sentence)
    return code


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr.

    Parameters
    ----------
    arguments
        What follows `candling`; the process's own arguments when None.
    """
    command = typer.main.get_command(app)
    try:
        result = command.main(
            args=None if arguments is None else list(arguments), prog_name="candling", standalone_mode=False
        )
    except (Exception, KeyboardInterrupt) as error:
        return _report(error)
    except SystemExit as end:
        # Of --install-completion and --show-completion, whose 1 is no verdict. A shell that asks for words
        # takes the code as it is.
        code = end.code if isinstance(end.code, int) else 0
        return USAGE if code and _COMPLETE not in os.environ else code
    return result if isinstance(result, int) else 0


@contextmanager
def guard() -> Iterator[None]:
    """Let errors end the process as they end `candling`: for scripts of the audit repository."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_report(error))


def main() -> None:
    """The entry point of the `candling` command."""
    sys.exit(run())
