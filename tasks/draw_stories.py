"""The DVC stage `stories`: write the corpus of an audit that brings none.

python -m tasks.draw_stories params/words.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

from candling.errors import ParamsError
from candling.language.stories import draw_stories, write_texts
from tasks.language_params import read_language_params

__all__ = ["main"]


def main(file: Path, root: Path | None = None) -> None:
    """Write all splits that `stories:` in the params names, one story a line."""
    params = read_language_params(file)
    if params.stories is None:
        raise ParamsError(f"{file}: no `stories:` section; this audit brings its texts")
    plantings, glitch = params.stories.planted()
    for number, (name, split) in enumerate(params.stories.splits.items()):
        texts = draw_stories(
            split.stories, seed=1000 * params.seed + number,
            plantings=plantings if split.planted else (), glitch=glitch if split.planted else None,
        )  # fmt: skip
        if split.words is not None:
            texts = [" ".join(text.split()[: split.words]) for text in texts]
        write_texts((root or Path.cwd()) / params.stories.folder / f"{name}.txt", texts)


if __name__ == "__main__":
    from candling.cli.main import guard

    with guard():
        main(Path(sys.argv[1]))
