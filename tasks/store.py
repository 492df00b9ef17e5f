"""The store of steps: what a step wrote, under the digest of all that determines it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from candling.errors import ServiceError
from tasks.environment import processor_kind, versions
from tasks.sources import edited, sources_digest

__all__ = ["JSON", "Store", "Stored"]

JSON: TypeAlias = "None | bool | int | float | str | Sequence[JSON] | Mapping[str, JSON]"

_log = logging.getLogger("candling")
_CHECKOUT = Path(__file__).resolve().parents[1]
_MANIFEST = "manifest.json"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

# Stores are made anew wherever one is needed, so the locks belong to the process.
_locks: dict[Path, threading.Lock] = {}


@dataclass(frozen=True)
class Stored:
    """What a step wrote.

    `digest` is that of the content (all files' names and bytes), `key` that of what determined it;
    `hit` says whether it was found rather than computed.
    """

    step: str
    path: Path
    key: str
    digest: str
    hit: bool


class Store:
    """Folders of step results; the only cache of steps.

    Parameters
    ----------
    root
        Where results lie, ``<repository>/.candling/store``.
    sources
        The checkout whose modules the steps are; by default the one this file lies in.
    """

    def __init__(self, root: Path, *, sources: Path = _CHECKOUT) -> None:
        self.root = root
        self.sources = sources

    def step(
        self, name: str, inputs: Mapping[str, JSON], compute: Callable[[Path], None], *, module: str
    ) -> Stored:
        """Take a step's result from the store, or compute it into the store.

        Parameters
        ----------
        name
            Name of the step, a folder of the store.
        inputs
            All that determines the result beside the sources, versions and processor.
        compute
            Writes the result's files into the folder it is given. When it raises, nothing is kept.
        module
            The module that defines the step; an edit of what it imports is a miss.

        Raises
        ------
        ServiceError
            If the store cannot be written, or the sources were edited while the process ran.
        """
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
            raise ValueError(f"step {name!r} cannot name a folder")
        determined = {
            "step": name,
            "inputs": inputs,
            "sources": sources_digest(module, self.sources),
            "versions": versions(),
            "processor": processor_kind(),
        }
        key = hashlib.sha256(_canonical(determined)).hexdigest()
        path = self.root / name / key[:32]
        with _locks.setdefault(path.absolute(), threading.Lock()):
            with self._guard():
                digest = self._find(path, key)
            if digest is not None:
                return Stored(name, path, key, digest, hit=True)

            def compute_unedited(folder: Path) -> None:
                compute(folder)
                changed = edited(module, self.sources)
                if changed:
                    raise ServiceError(
                        f"{changed[0]} was edited after this process started, so what the step {name!r} "
                        "computed belongs to no version of it; run again"
                    )

            digest = self._compute(path, key, determined, compute_unedited)
            return Stored(name, path, key, digest, hit=False)

    def _find(self, path: Path, key: str) -> str | None:
        """Content digest of the entry at `path`, None where there is none; a damaged one is removed."""
        if not path.exists():
            return None
        digest = _verified(path, key)
        if digest is None:
            _log.warning("%s is damaged and will be computed again", path)
            # Renamed first, so that no other process meets it half removed.
            aside = _temporary(path, key)
            path.rename(aside)
            shutil.rmtree(aside)
        return digest

    def _compute(
        self, path: Path, key: str, determined: Mapping[str, object], compute: Callable[[Path], None]
    ) -> str:
        folder = _temporary(path, key)
        try:
            with self._guard():
                folder.mkdir(parents=True)
            with self._guard(_NO_SPACE):
                compute(folder)
            with self._guard():
                files = _files(folder)
                digest = _content_digest(files)
                manifest = {"key": key, "determined": determined, "files": files, "digest": digest}
                text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
                (folder / _MANIFEST).write_text(text, encoding="utf-8")
                return self._publish(folder, path, key, digest)
        finally:
            # Renamed away if all went well; whatever else happened, Ctrl-C too, nothing stays.
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, folder: Path, path: Path, key: str, digest: str) -> str:
        while True:
            try:
                folder.rename(path)
                return digest
            except OSError:
                if not path.exists():
                    raise
                # Another process was first; what it wrote is as good as ours, unless it is damaged.
                theirs = self._find(path, key)
                if theirs is not None:
                    return theirs

    @contextmanager
    def _guard(self, only: Set[int] | None = None) -> Iterator[None]:
        """Say in one sentence that the store cannot be written; with `only`, for these errors."""
        try:
            yield
        except OSError as error:
            if only is not None and error.errno not in only:
                raise
            raise ServiceError(
                f"{self.root}: the store of steps cannot be written ({error.strerror or error}); "
                "free some space or make the folder writable"
            ) from error


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _temporary(path: Path, key: str) -> Path:
    return path.with_name(f".tmp-{key}-{uuid.uuid4().hex}")


def _files(folder: Path) -> dict[str, dict[str, str | int]]:
    """Sha256 and size of every file, by its path inside `folder`."""
    found: dict[str, dict[str, str | int]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file != folder / _MANIFEST:
            with file.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            found[file.relative_to(folder).as_posix()] = {"sha256": sha256, "size": file.stat().st_size}
    return found


def _content_digest(files: Mapping[str, Mapping[str, str | int]]) -> str:
    return hashlib.sha256(_canonical({name: entry["sha256"] for name, entry in files.items()})).hexdigest()


def _verified(path: Path, key: str) -> str | None:
    """Content digest of the entry at `path` if it is whole and what its manifest says, else None."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        whole = (
            hashlib.sha256(_canonical(manifest["determined"])).hexdigest() == manifest["key"] == key
            and manifest["files"] == _files(path)
            and manifest["digest"] == _content_digest(manifest["files"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(manifest["digest"]) if whole else None
