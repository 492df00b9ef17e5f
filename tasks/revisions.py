"""DVC-tracked data at a revision: ``data/photos@v1.0`` is what lay there then."""

from __future__ import annotations

import subprocess
from pathlib import Path

from candling.errors import DataError

__all__ = ["checked_out"]


def checked_out(text: str, root: Path) -> Path:
    """The path that `text` names, relative to `root`; of a revision, checked out under `.candling`.

    Raises
    ------
    DataError
        If the revision or the path at that revision is not there.
    """
    from candling.data import split_revision

    path, revision = split_revision(text, root)
    if revision is None:
        return root / path
    commit = _commit(root, revision)
    out = root / ".candling" / "revisions" / commit[:12] / path
    if not out.exists():
        _fetch(root, path, commit, out)
    return out


def _commit(root: Path, revision: str) -> str:
    ask = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    found = subprocess.run([*ask, f"{revision}^{{commit}}"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise DataError(f"{revision!r} is no revision of {root}; `git tag` and `git log` list them")
    return found.stdout.strip()


def _fetch(root: Path, path: str, commit: str, out: Path) -> None:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.scm import SCMError  # type: ignore[import-untyped]

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        Repo.get(str(root), path, out=str(part), rev=commit)
        part.rename(out)
    except (DvcException, SCMError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} at {commit[:12]}: DVC has no such data ({reason}); `dvc pull` gets it"
        ) from error
