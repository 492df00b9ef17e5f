"""The audit repository around us, whose flows and tasks are found by name at run time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from candling.errors import CandlingError

__all__ = ["find_repository", "load_module"]


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


def load_module(root: Path, name: str, command: str) -> Any:
    """A module of the repository at `root`, such as ``flows.audit``, for a command of candling.

    Raises
    ------
    CandlingError
        If the repository has no such module, a package that it needs is not installed, or another package
        of its name comes first on the path.
    """
    file = root.joinpath(*name.split(".")).with_suffix(".py")
    if not file.is_file():
        raise CandlingError(f"{file}: no such file; `candling {command}` needs a newer audit repository")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        # It says what Prefect should know before that is imported.
        importlib.import_module("flows")
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "candling", "flows", "tasks"):
            raise
        message = f"{command} needs {error.name}; install it with `pip install 'candling[audit]'`"
        raise CandlingError(message) from error
    # A package called `flows` that someone installed would otherwise be run in place of ours.
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise CandlingError(f"{module.__file__}: shadows {file}; take it off PYTHONPATH")
    return module
