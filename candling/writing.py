"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(files: Mapping[Path, str]) -> None:
    """Write texts as UTF-8, none of them before all could be written beside their place.

    Raises
    ------
    OSError
        If a folder is read-only or full; no file is changed then.
    """
    drafts: dict[Path, Path] = {}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            drafts[path] = path.with_name(f".{path.name}.part")
            # A lone surrogate must not cost the whole file.
            drafts[path].write_bytes(text.encode("utf-8", "backslashreplace"))
        for path, draft in drafts.items():
            os.replace(draft, path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
