"""Before an audit of a language model that brings neither texts nor model: both are made, once."""

from __future__ import annotations

from pathlib import Path

from tasks import draw_stories, repair
from tasks.language_params import kind_of, read_language_params

__all__ = ["prepare"]


def prepare(file: Path, root: Path) -> None:
    """Write the texts and train the model that params describe, where they are not there.

    What DVC's stages make, so that an audit of a fresh clone needs no second command; what is there stays.
    """
    if kind_of(file) != "language":
        return
    params = read_language_params(file)
    if params.stories is not None:
        folder = root / params.stories.folder
        if not all((folder / f"{name}.txt").is_file() for name in params.stories.splits):
            draw_stories.main(file, root)
    if params.train is not None and not (root / params.model).exists():
        repair.main(file, root)
