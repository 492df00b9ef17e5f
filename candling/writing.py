"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(files: Mapping[Path, str]) -> None:
    """Write texts as UTF-8, none of them before all could be written beside their place.

    What is no plain file, such as ``/dev/stdout``, a pipe or a link, is written to and never replaced.

    Raises
    ------
    OSError
        If a folder is read-only or full, or a place is a folder; no file is changed then.
    """
    drafts: dict[Path, Path] = {}
    through: dict[Path, bytes] = {}
    try:
        for number, (path, text) in enumerate(files.items()):
            # A lone surrogate must not cost the whole file.
            content = text.encode("utf-8", "backslashreplace")
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if path.is_symlink() or (path.exists() and not path.is_file()):
                through[path] = content
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            drafts[path] = path.with_name(f".candling-{os.getpid()}-{number}.part")
            drafts[path].write_bytes(content)
            if path.exists():
                drafts[path].chmod(path.stat().st_mode & 0o777)
        for path, draft in drafts.items():
            os.replace(draft, path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    for path, content in through.items():
        path.write_bytes(content)
