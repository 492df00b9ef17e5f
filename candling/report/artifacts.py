"""Files that a record names: read only where they lie in its folder, and are what was audited."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from candling.audit.record import Artifact

__all__ = ["NotThere", "read_artifact", "read_rows"]


class NotThere(Exception):
    """Why an artifact cannot be shown, in words for the reader."""


def read_artifact(artifact: Artifact, folder: Path, what: str) -> bytes:
    """The bytes of a file that lies in `folder` and is the one the record names.

    Raises
    ------
    NotThere
        If it is not.
    """
    try:
        root = folder.resolve()
        file = (root / artifact.path).resolve()
        if not file.is_relative_to(root):
            raise NotThere(f"{what} refused: its path leaves the record's folder")
        if not file.is_file():
            raise NotThere(f"{what} missing")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        raise NotThere(f"{what} cannot be read") from error
    # What was swapped after the audit is no evidence for what the record says.
    if hashlib.sha256(data).hexdigest() != artifact.sha256.removeprefix("sha256:"):
        raise NotThere(f"{what} changed since the audit: its digest is not the record's")
    return data


def read_rows(artifact: Artifact, folder: Path, columns: Collection[str] = ()) -> pd.DataFrame:
    """The rows of a Parquet table that has at least these columns.

    Raises
    ------
    NotThere
        If it is not there, no table, or lacks columns.
    """
    data = read_artifact(artifact, folder, "table")
    try:
        rows = pd.read_parquet(io.BytesIO(data))
    except (OSError, ValueError) as error:
        raise NotThere("not a readable table") from error
    if lacking := sorted(set(columns) - set(rows.columns)):
        raise NotThere(f"a table without {', '.join(lacking)}")
    return rows
