"""`candling doctor`: what is installed and reachable, what is known to break, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from candling.cli.options import Debug
from candling.cli.output import emit, is_terminal, width
from candling.cli.repository import find_repository
from candling.errors import CandlingError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

State = Literal["ok", "note", "bad"]

_EXTRAS = {
    "engine": ("torch", "torchvision", "transformers"),
    "audit": ("prefect", "mlflow", "dvc"),
}
# Releases that break what they are installed with, though pip says nothing.
_BROKEN: tuple[tuple[str, Callable[[tuple[int, ...]], bool], str], ...] = (
    ("fastapi", lambda v: v >= (0, 151), "Prefect's server crashes at import: install 'fastapi<0.151'"),
    ("fastapi", lambda v: v < (0, 139), "Prefect's server needs a newer one: install 'fastapi>=0.139'"),
    ("torch", lambda v: v[:2] == (2, 13), "its CPU build breaks torchvision: install torch 2.14 or newer"),
)
_SECONDS = 5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str


def numbers(text: str) -> tuple[int, ...]:
    """The release of a version, such as (2, 14, 1) of ``2.14.1+cpu``."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _packages() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Check("candling", "ok", _installed("candling") or "not installed, run from its sources")
    for extra, names in _EXTRAS.items():
        for name in names:
            found = _installed(name)
            missing = f"not installed; `pip install 'candling[{extra}]'` adds it"
            yield Check(name, "note" if found is None else "ok", found or missing)
    for name, broken, why in _BROKEN:
        found = _installed(name)
        if found is not None and broken(numbers(found)):
            yield Check(name, "bad", f"{found}: {why}")


def _device() -> Iterator[Check]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Check("machine", "ok", f"{os.cpu_count()} cores, {memory:.0f} GiB memory, {platform.platform()}")
    if _installed("torch") is None:
        return
    code = (
        "import torch, torchvision; "
        "print(torch.cuda.get_device_name() + '; the library uses it, audits and commands run on the CPU' "
        "if torch.cuda.is_available() else 'no accelerator')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # In a process of its own: what breaks at import must not break the doctor.
    last = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1:]
    yield Check("device", "ok" if done.returncode == 0 else "bad", last[0] if last else "nothing was said")


def _answers(name: str, address: str) -> Check:
    shown = re.sub(r"//[^/@]*@", "//***@", address)
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as response:
            state: State = "ok" if response.status < 400 else "bad"
            return Check(name, state, f"{shown} answers {response.status}")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(name, "bad", f"{shown} does not answer ({reason}); start it, or unset its address")


def _services() -> Iterator[Check]:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith("http"):
        yield _answers("MLflow", f"{uri.rstrip('/')}/health")
    else:
        yield Check("MLflow", "ok", uri or "no server named: a database in the repository is used")
    api = os.environ.get("PREFECT_API_URL", "")
    if api:
        yield _answers("Prefect", f"{api.rstrip('/')}/health")
    else:
        seconds = os.environ.get("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "")
        wait = f"; it may take {seconds} s to start" if seconds else ""
        yield Check("Prefect", "ok", f"no server named: each audit starts one of its own{wait}")


def _repository() -> Iterator[Check]:
    try:
        root = find_repository(Path.cwd())
    except CandlingError as error:
        yield Check("repository", "note", str(error))
        return
    yield Check("repository", "ok", str(root))
    free = shutil.disk_usage(root).free / 2**30
    yield Check("disk", "bad" if free < 1 else "ok", f"{free:.1f} GiB free")
    if _installed("dvc") is None:
        return
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        changed = sorted(json.loads(done.stdout))
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        yield Check("DVC", "note", last[0])
        return
    told = f"{', '.join(changed)} would run again: `dvc repro`" if changed else "everything is up to date"
    yield Check("DVC", "note" if changed else "ok", told)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Look at versions, releases that are known to break, the device, MLflow, Prefect and DVC.

    Exits 0, or 2 if something is broken.
    """
    checks = [*_packages(), *_device(), *_services(), *_repository()]
    if as_json:
        emit(json.dumps([asdict(check) for check in checks], indent=2) + "\n")
    else:
        from candling.report.terminal import render_checks

        rows = [(check.name, check.state, check.found) for check in checks]
        emit(render_checks(rows, terminal=is_terminal(), width=width()))
    raise typer.Exit(2 if any(check.state == "bad" for check in checks) else 0)
