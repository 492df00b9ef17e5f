"""Checks before a run starts, so that what would fail after minutes fails in seconds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import httpx

from candling.errors import ModelError, ParamsError, ServiceError
from tasks.params import ModelParams, model_source

__all__ = ["check_model", "check_prefect", "check_writable"]

_TIMEOUT = 5.0


def check_model(model: str | ModelParams, root: Path, params: Path) -> None:
    """See that the model which `model:` in `params` names is there; whether it answers is a step's work.

    Raises
    ------
    ParamsError
        If it is of no form that there is, or a file of it is missing.
    """
    from candling.models import model_digest

    source = model_source(model)
    local = {"weights": source.weights, "classes": source.classes, "preprocessing": source.preprocessing}
    for key, value in local.items():
        # Without a slash or an ending it is the name of weights.
        if isinstance(value, str) and ("/" in value or "." in value) and not (root / value).exists():
            raise ParamsError(f"{root / value}: no such file; `model:` in {params} names it as its {key}")
    folder = root / source.name
    if source.source == "folder" and not folder.exists():
        raise ParamsError(
            f"{folder}: no such model; name your model's folder under `model:` in {params}, "
            "or let `dvc repro` train the one of a shipped audit"
        )
    if source.source == "folder" and (folder / "spec.json").is_file():
        try:
            model_digest(folder)
        except ModelError as error:
            raise ParamsError(f"{error}; `model:` in {params} names it") from error


def check_prefect() -> None:
    """See that the Prefect server at PREFECT_API_URL answers; without one, runs bring their own.

    Raises
    ------
    ServiceError
        If a server is named and does not answer within five seconds.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return
    try:
        healthy = httpx.get(f"{url.rstrip('/')}/health", timeout=_TIMEOUT).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL):
        healthy = False
    if not healthy:
        raise ServiceError(f"Prefect does not answer at URI {url}; start it or unset PREFECT_API_URL")


def check_writable(folder: Path) -> None:
    """See that files can be made in `folder`, or where it would be made; leaves nothing behind.

    Raises
    ------
    ServiceError
        If they cannot.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        # Permission bits say little (root, read-only mounts, full disks), so a file is really made.
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"candling")
    except OSError as error:
        raise ServiceError(
            f"{folder}: cannot be written ({error.strerror or error}); make the folder writable"
        ) from error
