"""The texts of an audit of a language model: where they lie, and the digest of each file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from candling.errors import DataError
from tasks.language_params import LanguageParams
from tasks.read_data import Located

__all__ = ["locate_texts", "read_located"]


def locate_texts(params: LanguageParams, root: Path) -> dict[str, Located]:
    """The files of texts by role: ``texts``, ``prompts`` and ``repair.<subject>``.

    Raises
    ------
    DataError
        If one is missing or cannot be read.
    """
    files = {"texts": params.texts} | ({"prompts": params.prompts} if params.prompts else {})
    for name, corpus in (params.repair.subjects if params.repair else {}).items():
        files[f"repair.{name}"] = corpus.texts
    return {role: _located(root / place) for role, place in files.items()}


def _located(file: Path) -> Located:
    try:
        return Located(file.parent, file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); name a file of texts, one a line, "
            "or let `dvc repro` write the one of a shipped audit"
        ) from error


def read_located(located: Located) -> list[str]:
    """The texts of a file, one a line.

    Raises
    ------
    DataError
        If it is no UTF-8, or empty.
    """
    from candling.language.stories import read_texts

    return read_texts(located.folder / located.split)
