"""DVC-tracked data at a revision: ``data/photos@v1.0`` is what lay there then."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from candling.errors import DataError

__all__ = ["checked_out"]


def checked_out(text: str, root: Path) -> Path:
    """The path that `text` names, relative to `root`; of a revision, checked out under `.candling`.

    Raises
    ------
    DataError
        If the revision or the path at that revision is not there, or a revision's path lies outside `root`.
    """
    from candling.data import split_revision

    path, revision = split_revision(text, root)
    if revision is None:
        return root / path
    whole = (root / path).resolve()
    if not whole.is_relative_to(root.resolve()):
        raise DataError(
            f"{text}: lies outside {root}, whose revisions are meant; name data of this repository"
        )
    inside = whole.relative_to(root.resolve())
    commit = _commit(root, revision)
    out = root / ".candling" / "revisions" / commit / inside
    if not out.exists():
        _fetch(root, inside, commit, out)
    return out


def _commit(root: Path, revision: str) -> str:
    ask = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    found = subprocess.run([*ask, f"{revision}^{{commit}}"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise DataError(f"{revision!r} is no revision of {root}; `git tag` and `git log` list them")
    return found.stdout.strip()


def _fetch(root: Path, path: Path, commit: str, out: Path) -> None:
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.repo import Repo  # type: ignore[import-untyped]
    from dvc.scm import SCMError  # type: ignore[import-untyped]

    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
    try:
        Repo.get(str(root), path.as_posix(), out=str(part / out.name), rev=commit)
        (part / out.name).rename(out)
    except (DvcException, SCMError, OSError) as error:
        if out.exists():
            return  # another process was first, and a commit's data are the same for all
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} at {commit[:12]}: DVC has no such data ({reason}); `dvc pull` gets it"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
